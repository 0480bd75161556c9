"""AMS on several ranks is training on one process, and its bytes are those of the formulas."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tests.models.rank_steps import in_one_process, state
from uic.models.images.features import ImageFeatures
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.sharding.ams import AmsRank
from uic.models.sharding.ams_bytes import (
    PAPER,
    PRINTED_STORAGE_RATIO,
    PRINTED_WIRE_RATIO,
    Job,
    Strategy,
    cost,
    mean_of,
    storage_ratio,
    wire_ratio,
)
from uic.models.sharding.processes import RankFailedError, run_ranks
from uic.models.sharding.world import ShardWorld
from uic.models.training.optimizer import Optimizer
from uic.models.training.run_spec import apply_settings
from uic.models.training.settings import TrainSettings

pytestmark = pytest.mark.slow


def _module(name):
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"ams_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures, samples = (_module(name) for name in ("images", "conftest"))

STEPS = 20
SMALL = [
    "images=small", "image_width=9", "image_widths=[5, 4]", "image_id_rows=13", "item_width=3",
    "category_width=2", "head_widths=[7, 4]", "embedding_std=0.6", "history_limit=6",
    "adaptive_regularization=0.3",
]  # fmt: skip
# Dice normalises too; LR has neither aggregator's query network nor a hidden layer.
VARIANTS = {
    "multi_query": ["activation=dice"],
    "din": ["basic_net=din", "aggregator=max", "image_ids=false"],
    "baseline": ["ad_image=false", "behavior_images=false", "category_width=0", "aggregator=sum"],
}
CLIP = 0.05
RANKS = 4  # of which bytes are counted
RUNS = [("multi_query", strategy) for strategy in Strategy]
RUNS += [("din", Strategy.AMS), ("baseline", Strategy.AMS)]


def start(folder, variant, dtype=torch.float64):
    """Model, optimiser, encoder and the batches of all steps: the same in every process."""
    reader = SamplesReader(folder / "samples")
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    settings, _ = apply_settings("dicm", TrainSettings(), [*SMALL, *VARIANTS[variant]])
    torch.manual_seed(5)
    model = MODELS["dicm"].build(settings, vocabulary.item.rows, vocabulary.category.rows)
    model = model.to(dtype).train()
    model.attach_images(ImageFeatures.open(folder / "images"))
    optimizer = Optimizer(
        model, learning_rate=0.01, decay_rate=0.9, decay_steps=7, gradient_clip=CLIP
    )
    batches = []
    for epoch in range(STEPS):
        # Some batches have fewer groups than there are ranks.
        plan = BatchPlan(batch_impressions=2 if epoch % 5 == 4 else 30)
        batches += list(reader.batches(plan, epoch))[:2]
    return model, optimizer, Encoder(vocabulary, dtype=dtype), batches[:STEPS]


def one_process(folder, variant):
    """The same steps with `Optimizer.step`."""
    found, losses = in_one_process(*start(folder, variant))
    return found, [loss for loss, _ in losses]


# ------------------------------------------------------------------- what the processes run
def learn(world, folder):
    """Every strategy and variant; rank 0 writes weights, moments and losses."""
    for variant, strategy in RUNS:
        model, optimizer, encoder, batches = start(folder, variant)
        rank = AmsRank(model, optimizer, world, strategy)
        losses = []
        for number, batch in enumerate(batches):
            part = encoder.encode(rank.part_of(batch))
            losses.append(rank.step(part, batch.impressions).total.item())
            if number == 0:
                assert model.embedding.item.numel() == 0
            if number == 7:  # a checkpoint in between changes nothing
                rank.gather(everywhere=False)
        rank.gather(everywhere=True)
        if world.rank == 0:
            np.savez(
                folder / f"{variant}-{strategy.value}-{world.size}.npz",
                losses=losses,
                **state(model, optimizer),
            )
    if world.size == RANKS:
        count(world, folder)


def count(world, folder):
    """Counters of a few float32 steps, by strategy."""
    for strategy in Strategy:
        world.traffic = type(world.traffic)()
        model, optimizer, encoder, batches = start(folder, "multi_query", torch.float32)
        rank = AmsRank(model, optimizer, world, strategy)
        for batch in batches:
            rank.step(encoder.encode(rank.part_of(batch)), batch.impressions)
        measured, job = rank.measured(), vars(rank.job())
        rank.gather(everywhere=True)
        if world.rank == 0:
            path = folder / f"bytes-{strategy.value}-{world.size}.json"
            path.write_text(json.dumps({"measured": measured, "job": job}))


# ------------------------------------------------------------------------------- the tests
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ams")
    samples.publish_samples(folder / "samples", samples.random_rows(60, longest=11))
    pictures.publish_features(folder / "images")
    return folder


@pytest.fixture(scope="module")
def learned(folder):
    """The folder, with what 1, 2 and 4 ranks have learned and counted."""
    learn(ShardWorld(), folder)
    for size in (2, RANKS):
        assert run_ranks(size, learn, folder, timeout_seconds=60) == [None] * size
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    return {variant: one_process(folder, variant) for variant in VARIANTS}


@pytest.mark.parametrize("size", [1, 2, RANKS])
def test_any_number_of_ranks_and_strategy_is_one_process(size, learned, alone):
    for variant, strategy in RUNS:
        expected, losses = alone[variant]
        name = f"{variant}, {strategy.value}, {size} ranks"
        with np.load(learned / f"{variant}-{strategy.value}-{size}.npz") as found:
            np.testing.assert_allclose(found["losses"], losses, rtol=0, atol=1e-10, err_msg=name)
            assert set(found.files) == {*expected, "losses"}
            for key, value in expected.items():
                np.testing.assert_allclose(
                    found[key], value, rtol=0, atol=1e-9, err_msg=f"{name}: {key}"
                )


def test_the_steps_do_something(folder, alone):
    """Clipping, regularisation, default vector and every weight take part in what is compared."""
    first, _ = start(folder, "multi_query")[:2]
    trained, losses = alone["multi_query"]
    for name, tensor in first.state_dict().items():
        if name.endswith("rest.3.bias"):  # a softmax does not depend on it
            continue
        assert np.abs(trained[name] - tensor.numpy()).max() > 1e-4, name
    assert np.std(losses) > 1e-3
    model, optimizer, encoder, batches = start(folder, "multi_query")
    encoded = encoder.encode(batches[0])
    rows = model.embedding.rows(encoded)
    outputs = model.outputs(encoded, rows)
    binary_cross_entropy_with_logits(outputs.logits, encoded.labels).backward()
    norm = torch.nn.utils.clip_grad_norm_([*optimizer.dense, rows.items, rows.categories], 1e9)
    assert float(norm) > CLIP


def wanted_by_hand(folder, size):
    """From the samples alone: per rank and batch, distinct images and ids, and where they lie."""
    model, _, encoder, batches = start(folder, "multi_query", torch.float32)
    features, table = model.features, model.image_ids
    total = dict.fromkeys(
        ("images", "images_away", "owned", "places", "missing", "floats", "floats_away", "ids",
         "ids_away"), 0
    )  # fmt: skip
    for batch in batches:
        shown = set()
        for rank in range(size):
            groups = np.arange(rank, batch.groups, size)
            part = batch.select(groups)
            events = np.arange(part.events)
            earliest = [
                int(part.history_lengths[slice(*part.impression_offsets[g : g + 2])].min())
                for g in range(part.groups)
            ]
            firsts = part.history_offsets[:-1] + np.maximum(np.array(earliest, int) - 6, 0)
            owner = np.repeat(np.arange(part.groups), np.diff(part.history_offsets))
            looked = part.history_item_ids[events >= firsts[owner]]
            rows = features.rows_of(np.concatenate([looked, part.item_ids]))
            total["missing"] += int((rows < 0).sum())
            total["places"] += int((rows >= 0).sum())
            distinct = np.unique(rows[rows >= 0])
            shown |= set(distinct.tolist())
            total["images"] += distinct.size
            total["images_away"] += int((distinct % size != rank).sum())
            encoded = encoder.encode(part)
            ids = np.unique(np.append(table._of_image[distinct], table.rows))
            for table_ids, width in (
                (encoded.items.numpy(), 3), (encoded.categories.numpy(), 2), (ids, 3),
            ):  # fmt: skip
                away = int((table_ids % size != rank).sum())
                total["ids"] += table_ids.size
                total["ids_away"] += away
                total["floats"] += table_ids.size * width
                total["floats_away"] += away * width
        total["owned"] += len(shown)
    return total


@pytest.fixture(scope="module")
def counted(learned):
    return {
        strategy: json.loads((learned / f"bytes-{strategy.value}-{RANKS}.json").read_text())
        for strategy in Strategy
    }


def test_bytes_of_all_strategies_are_those_of_the_formulas(folder, counted):
    hand = wanted_by_hand(folder, RANKS)
    batches = start(folder, "multi_query")[3]
    sample_bytes = counted[Strategy.AMS]["job"]["sample_bytes"]
    for strategy, found in counted.items():
        measured = found["measured"]
        total = Job(
            images=hand["images"],
            image_places=hand["places"],
            ids=hand["ids"],
            id_floats=hand["floats"],
            sample_bytes=sample_bytes,
            stored_images=25,
            batches=STEPS,
            feature_width=9,
            embedding_width=4,
        )
        assert Job(**found["job"]) == total
        # What stays on a rank does not travel; the paper's servers are other machines.
        away = mean_of(
            replace(
                total,
                images=hand["images_away"],
                ids=hand["ids_away"],
                id_floats=hand["floats_away"],
            ),
            len(batches),
        )
        expected = cost(strategy, away)
        each = {key: value / STEPS for key, value in measured.items()}
        assert each["image_values"] + each["image_gradients"] == pytest.approx(expected.image_wire)
        assert each["id_values"] + each["id_gradients"] == pytest.approx(expected.id_wire)
        requests = each["image_requests"] + each["id_requests"]
        assert requests == pytest.approx(expected.request_wire)
        assert each["worker_store"] == pytest.approx(expected.worker_store)
        assert each["server_store"] == pytest.approx(expected.server_store)
        assert measured["model_sums"] > 0


def test_ams_embeds_an_image_once_an_iteration_and_parameter_servers_do_not(folder, counted):
    hand = wanted_by_hand(folder, RANKS)
    embedded = {name: found["measured"]["images_embedded"] for name, found in counted.items()}
    assert embedded[Strategy.AMS] == hand["owned"]
    assert embedded[Strategy.PS_SERVER] == embedded[Strategy.PS_WORKER] == hand["images"]
    assert hand["owned"] < hand["images"] < hand["places"]
    for found in counted.values():
        assert found["measured"]["images_wanted"] == hand["places"]
        assert found["measured"]["images_missing"] == hand["missing"] > 0


def test_the_papers_ratios_follow_from_the_formulas():
    assert int(storage_ratio(PAPER)) == PRINTED_STORAGE_RATIO == 31
    assert int(wire_ratio(PAPER)) == PRINTED_WIRE_RATIO == 32
    mib = 2**20
    ams, ps_server = cost(Strategy.AMS, PAPER), cost(Strategy.PS_SERVER, PAPER)
    assert ams.wire / mib == pytest.approx(158, abs=1)
    assert ams.id_wire / mib == pytest.approx(128, abs=1)
    assert ams.image_wire / mib == pytest.approx(30, abs=1)
    assert ps_server.image_wire / mib == pytest.approx(5.0 * 1000, rel=0.01)
    # 2T over 65,000 batches, in millions as printed.
    assert ams.server_store / 1e6 == pytest.approx(30.3, abs=0.1)
    # 4096 floats to 12: "over 340 times".
    assert PAPER.feature_width // PAPER.embedding_width == 341


def fail(world, wanted):
    if world.rank == wanted:
        msg = "rows are wrong"
        raise ValueError(msg)
    world.barrier()


def test_the_error_of_a_rank_is_told_with_its_reason():
    with pytest.raises(RankFailedError, match="ValueError: rows are wrong"):
        run_ranks(2, fail, 1, timeout_seconds=30)
