"""A model with a large memory on several ranks is training on one process; bytes are counted."""

import dataclasses
import importlib.util
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.rank_steps import in_one_process, state
from uic.models.errors import BadInputError
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.sharding.processes import RankFailedError, run_ranks
from uic.models.sharding.rank_trainer import RankTrainer
from uic.models.sharding.rank_training import RankTraining
from uic.models.sharding.router import ShardError
from uic.models.sharding.table import ShardedTable
from uic.models.sharding.world import ShardWorld
from uic.models.training.checkpoint import load_checkpoint
from uic.models.training.optimizer import Optimizer
from uic.models.training.run_spec import RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.short_histories import with_short_histories
from uic.models.training.trainer import Trainer, Watcher

pytestmark = pytest.mark.slow

_PATH = Path(__file__).parent / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("rank_training_samples", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

STEPS = 8
# A softmax does not depend on it: what moves it is rounding.
NO_SLOPE = "rest.3.bias"
CLIP = 0.05
SMALL = [
    "memory=lmn", "item_width=3", "category_width=2", "head_widths=[7, 4]", "embedding_std=0.6",
    "lmn_keys=6", "lmn_top_k=3", "lmn_heads=2",
]  # fmt: skip
USERS = ["lmn_user_rows=5"]
# Every base, with what asks, merges and pools; Dice normalises too, MIMN has a penalty of its own.
VARIANTS = {
    "lmn": [*USERS, "history_limit=6"],
    "din": [*USERS, "history_limit=6", "lmn_pooling=attention", "activation=dice"],
    "average_pooling": [*USERS, "lmn_merge=add", "lmn_width=4"],
    "sum_pooling": ["lmn_user=none", "category_width=0"],
    "dnn": [*USERS, "lmn_query=candidate"],
    "mimn": ["slots=3", "controller=4", "channel_width=4"],
}
WIDTH = 5  # of a value of `lmn`
RUNS = [(name, size) for name in VARIANTS for size in (1, 2)] + [("lmn", 3), ("mimn", 3)]


def start(folder, model, dtype=torch.float64):
    """Model, optimiser, encoder and the batches of all steps: the same in every process."""
    reader = SamplesReader(folder / "samples")
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    settings, _ = apply_settings(model, TrainSettings(), [*SMALL, *VARIANTS[model]])
    torch.manual_seed(5)
    ranker = MODELS[model].build(settings, vocabulary.item.rows, vocabulary.category.rows)
    ranker = ranker.to(dtype).train()
    optimizer = Optimizer(
        ranker, learning_rate=0.01, decay_rate=0.9, decay_steps=7, gradient_clip=CLIP
    )
    batches = []
    for epoch in range(STEPS):
        # Some batches have fewer groups than there are ranks.
        plan = BatchPlan(batch_impressions=2 if epoch % 4 == 3 else 30)
        some = list(reader.batches(plan, epoch))[:2]
        batches += [with_short_histories(batch, 0.3, (epoch, n)) for n, batch in enumerate(some)]
    return ranker, optimizer, Encoder(vocabulary, dtype=dtype), batches[:STEPS]


def one_process(folder, name):
    """The same steps with `Optimizer.step`."""
    return in_one_process(*start(folder, name))


# ------------------------------------------------------------------- what the processes run
def learn(world, folder):
    """Every base; rank 0 writes weights, moments and losses."""
    for name in [name for name, size in RUNS if size == world.size]:
        model, optimizer, encoder, batches = start(folder, name)
        rank = RankTraining(model, optimizer, world)
        losses = []
        for number, batch in enumerate(batches):
            part = encoder.encode(rank.part_of(batch))
            found = rank.step(part, batch.impressions)
            losses.append([found.cross_entropy.item(), found.total.item()])
            if number == 0:
                assert isinstance(model.large.block.values, ShardedTable)
                assert model.large.block.values.weight.shape[0] <= 36 // world.size + 1
                assert model.embedding.item.numel() == 0
            if number == 4:  # a checkpoint in between changes nothing
                rank.gather(everywhere=False)
                whole = model.large.block.values.weight.shape[0] == 36
                assert whole == (world.rank == 0)
        rank.gather(everywhere=True)
        if world.rank == 0:
            path = folder / f"{name}-{world.size}.npz"
            np.savez(path, losses=losses, **state(model, optimizer))
    if world.size > 1:
        count(world, folder)


def count(world, folder):
    """Counters of a few float32 steps of `lmn`, and what each rank's memory was asked for."""
    world.traffic = type(world.traffic)()
    model, optimizer, encoder, batches = start(folder, "lmn", torch.float32)
    asked = []
    activate = model.large.block.activate

    def remember(queries):
        weights, index = activate(queries)
        asked.append(index)
        return weights, index

    model.large.block.activate = remember
    rank = RankTraining(model, optimizer, world)
    for batch in batches:
        rank.step(encoder.encode(rank.part_of(batch)), batch.impressions)
    measured = rank.measured()
    distinct = [np.unique(index.numpy()) for index in asked]
    away = sum(int((rows % world.size != world.rank).sum()) for rows in distinct)
    wanted = sum(index.numel() for index in asked)
    found = {
        "measured": measured,
        "wanted": wanted,
        "distinct": sum(rows.size for rows in distinct),
        "away": away,
        "dense": sum(weight.numel() for weight in optimizer.dense),
    }
    (folder / f"counted-{world.rank}-of-{world.size}.json").write_text(json.dumps(found))
    rank.gather(everywhere=True)


def spec_of(folder):
    reader = SamplesReader(folder / "samples")
    assignments = [*SMALL, *VARIANTS["lmn"], "batch_impressions=16", "epochs=2"]
    assignments += ["checkpoint_every_steps=3", "curve_every_steps=4", "learning_rate=0.001"]
    settings, training = apply_settings("lmn", TrainSettings(), assignments)
    days = split_days(reader.days(), None, None, 1, "samples")
    return RunSpec("lmn", settings, training, days, 0, reader.name, reader.manifest_sha256())


def run_until_killed(world, folder):
    """The whole run; but rank 1 is killed in step 8, if the folder says so."""

    def step(report):
        if world.rank == 1 and report.step == 8 and (folder / "kill").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    trainer = RankTrainer(
        SamplesReader(folder / "samples"),
        spec_of(folder),
        checkpoint=folder / "run.safetensors",
        watcher=Watcher(step=step),
        world=world,
    )
    trainer.run()
    return trainer.costs()


def labelled_spec(folder):
    spec = spec_of(folder)
    training = spec.training.model_copy(update={"task_weights": {"buy": 2.0}})
    return dataclasses.replace(spec, training=training)


def run_with_a_label(world, folder):
    """Metrics of a run with a task; the label is not known of every third impression."""
    reader = SamplesReader(folder / "labelled")
    return RankTrainer(reader, labelled_spec(folder), world=world).run().metrics.to_json()


# ------------------------------------------------------------------------------- the tests
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rank-training")
    samples.publish_samples(folder / "samples", samples.random_rows(60, longest=11))
    return folder


@pytest.fixture(scope="module")
def learned(folder):
    """The folder, with what 1, 2 and 3 ranks have learned and counted."""
    learn(ShardWorld(), folder)
    for size in (2, 3):
        assert run_ranks(size, learn, folder, timeout_seconds=60) == [None] * size
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    return {name: one_process(folder, name) for name in VARIANTS}


@pytest.mark.parametrize(("name", "size"), RUNS)
def test_any_number_of_ranks_is_one_process(name, size, learned, alone):
    expected, losses = alone[name]
    with np.load(learned / f"{name}-{size}.npz") as found:
        np.testing.assert_allclose(found["losses"], losses, rtol=0, atol=1e-10)
        assert set(found.files) == {*expected, "losses"}
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-9, err_msg=key)


def test_the_steps_do_something(folder, alone):
    """Clipping, the memory's penalty and every weight take part in what is compared."""
    first = start(folder, "lmn")[0]
    trained, losses = alone["lmn"]
    for name, tensor in first.state_dict().items():
        if not name.endswith(NO_SLOPE):
            assert np.abs(trained[name] - tensor.numpy()).max() > 1e-4, name
    assert all(total > loss + 1e-4 for loss, total in losses)
    assert np.std([loss for loss, _ in losses]) > 1e-3


@pytest.mark.parametrize("size", [2, 3])
def test_a_value_travels_once_a_rank_and_step(size, learned):
    parts = [
        json.loads((learned / f"counted-{rank}-of-{size}.json").read_text()) for rank in range(size)
    ]
    measured = parts[0]["measured"]
    assert all(part["measured"] == measured for part in parts)
    away = sum(part["away"] for part in parts)
    assert measured["value_requests"] == 8 * away > 0
    assert measured["value_values"] == measured["value_gradients"] == 4 * WIDTH * away
    assert measured["values_wanted"] == sum(part["wanted"] for part in parts)
    assert measured["values_asked"] == sum(part["distinct"] for part in parts)
    assert measured["values_asked"] < measured["values_wanted"]
    assert measured["batches"] == STEPS
    assert measured["copies"] == 0
    # A ring sends 2 (size - 1) / size of each sum from each rank.
    assert measured["model_sums"] >= 2 * (size - 1) * 4 * parts[0]["dense"] * STEPS


def test_a_run_whose_rank_is_killed_names_it_and_goes_on(folder):
    (folder / "kill").touch()
    with pytest.raises(RankFailedError, match="rank 1 ended without an answer"):
        run_ranks(2, run_until_killed, folder, timeout_seconds=60)
    (folder / "kill").unlink()
    spec, checkpoint = spec_of(folder), folder / "run.safetensors"
    assert load_checkpoint(checkpoint, spec.identity())[0].steps == 6
    costs = run_ranks(2, run_until_killed, folder, timeout_seconds=60)[0]
    progress, tensors = load_checkpoint(checkpoint, spec.identity())
    assert progress.epoch == 2
    assert costs["measured"]["batches"] == progress.steps - 6
    assert costs["measured"]["copies"] > 0
    reader = SamplesReader(folder / "samples")
    alone = Trainer(reader, spec, checkpoint=folder / "alone.safetensors").run()
    expected, weights = load_checkpoint(folder / "alone.safetensors", spec.identity())
    assert set(tensors) == set(weights)
    for name, value in weights.items():
        # Adam makes a step of nothing but rounding as long as any other, a rate of 0.001.
        close = 1e-7 if name.startswith("moments.") else 1e-3
        if not name.endswith(NO_SLOPE):
            torch.testing.assert_close(tensors[name], value, rtol=0, atol=close, msg=name)
    assert [point["step"] for point in progress.curve] == [point["step"] for point in alone.curve]
    for point, other in zip(progress.curve, expected.curve, strict=True):
        assert point["loss"] == pytest.approx(other["loss"], abs=1e-5)
    for one in (progress, expected):
        del one.epochs[-1]["deciles"]  # an impression at the edge of two is in either
    assert progress.epochs[-1] == pytest.approx(expected.epochs[-1], abs=1e-4)


def test_a_label_beside_the_click_is_learned_over_ranks_as_in_one_process(folder):
    rows = samples.random_rows(60, longest=11)
    for row in rows:
        row["labels.buy"] = [None if item % 3 == 0 else item >= 20 for item in row["item_ids"]]
    samples.publish_samples(folder / "labelled", rows, labels=("buy",))
    found = run_ranks(2, run_with_a_label, folder)
    alone = Trainer(SamplesReader(folder / "labelled"), labelled_spec(folder)).run().metrics
    assert found[0] == found[1]
    task, expected = found[0]["tasks"]["buy"], alone.tasks["buy"]
    assert 0 < task["impressions"] == expected.impressions < alone.impressions
    assert task["logloss"] == pytest.approx(expected.logloss, abs=1e-4)
    assert found[0]["logloss"] == pytest.approx(alone.logloss, abs=1e-4)
    assert task["auc"] == pytest.approx(expected.auc, abs=0.01)


def validated_spec(folder):
    spec = spec_of(folder)
    days = split_days(
        SamplesReader(folder / "samples").days(), None, None, 1, "samples", validation_days=1
    )
    training = spec.training.model_copy(update={"epochs": 5, "learning_rate": 0.01})
    return dataclasses.replace(spec, days=days, training=training)


def run_validated(world, folder):
    """The AUC of the validation day after each epoch, the epoch kept, and the test's metrics."""
    reader = SamplesReader(folder / "samples")
    checkpoint = folder / "validated.safetensors"
    run = RankTrainer(reader, validated_spec(folder), checkpoint=checkpoint, world=world).run()
    return run.validation(), run.metrics.to_json()


def test_validation_days_stop_ranks_where_they_stop_one_process(folder):
    found = run_ranks(2, run_validated, folder)
    assert found[0] == found[1]
    reader, spec = SamplesReader(folder / "samples"), validated_spec(folder)
    alone = Trainer(reader, spec).run()
    validation, test = found[0]
    assert validation["kept_epoch"] == alone.kept_epoch < len(alone.epochs)
    assert validation["auc"] == pytest.approx([epoch["auc"] for epoch in alone.epochs], abs=0.01)
    assert test["logloss"] == pytest.approx(alone.metrics.logloss, abs=1e-3)
    read = Trainer(reader, spec, checkpoint=folder / "validated.safetensors").run()
    assert read.metrics.to_json() == test
    for name, value in alone.model.state_dict().items():
        if not name.endswith(NO_SLOPE):
            torch.testing.assert_close(read.model.state_dict()[name], value, rtol=0, atol=0.02)


def test_more_ranks_than_rows_name_the_table(folder):
    model, optimizer, _, _ = start(folder, "lmn")
    rank = RankTraining(model, optimizer, ShardWorld(0, 6))
    with pytest.raises(ShardError, match=r"large\.users: 6 ranks for a table of 5 rows"):
        rank.share()


def test_a_model_without_a_memory_does_not_train_over_ranks(folder):
    reader = SamplesReader(folder / "samples")
    settings, training = apply_settings("din", TrainSettings(), ["epochs=1"])
    days = split_days(reader.days(), None, None, 1, "samples")
    spec = RunSpec("din", settings, training, days, 0, reader.name, reader.manifest_sha256())
    with pytest.raises(BadInputError, match="din with no strategy: over ranks train dicm"):
        RankTrainer(reader, spec).run()


def stop_before_joining(world, rank):
    """Never called by a rank that does not join."""


def test_ranks_end_with_one_that_cannot_join(tmp_path):
    """Without an end by the parent, the other waits for it to join as long as it may."""
    with pytest.raises(RankFailedError, match="ended without an answer"):
        run_ranks(2, stop_before_joining, Unreadable(tmp_path), timeout_seconds=3600)


class Unreadable:
    """Ends the first process that reads it; the others read it."""

    def __init__(self, folder):
        self.folder = folder

    def __setstate__(self, state):
        self.__dict__ = state
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(1)
