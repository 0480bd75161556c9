"""Training: it learns, it repeats, and a killed run ends with the bits of one that was not."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch

from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.layers.embedding import BatchRows
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from uic.models.training.optimizer import Optimizer, RowAdam
from uic.models.training.run_spec import RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import NonFiniteLossError, Trainer, Watcher, build_model

SMALL = [
    "item_width=4",
    "category_width=2",
    "head_widths=[8]",
    "batch_impressions=32",
    "curve_every_steps=3",
    "learning_rate=0.01",
]


def make_spec(reader, model="sum_pooling", *more, seed=0, test_days=1):
    settings, training = apply_settings(model, TrainSettings(), [*SMALL, *more])
    days = split_days(reader.days(), None, None, test_days, "small")
    return RunSpec(model, settings, training, days, seed, reader.name, reader.manifest_sha256())


@pytest.fixture
def reader(make_samples, make_rows):
    return SamplesReader(make_samples(make_rows(150), row_group_size=20))


def weights_of(trained):
    return {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}


def assert_equal_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_model_learns_what_decides_a_click(make_samples, make_rows):
    """A click is the item's parity, nine times in ten."""
    reader = SamplesReader(make_samples(make_rows(400)))
    trained = Trainer(reader, make_spec(reader, "sum_pooling", "epochs=8")).run()
    assert trained.metrics.auc > 0.85
    assert [round(epoch["auc"], 6) for epoch in trained.epochs][-1] == round(trained.metrics.auc, 6)
    losses = [point["loss"] for point in trained.curve]
    assert losses[-1] < losses[0] - 0.05


def test_equal_specs_train_equal_weights_and_seeds_differ(reader):
    runs = [Trainer(reader, make_spec(reader, seed=seed)).run() for seed in (1, 1, 2)]
    assert_equal_weights(weights_of(runs[0]), weights_of(runs[1]))
    assert runs[0].curve == runs[1].curve
    assert not torch.equal(
        runs[0].model.state_dict()["embedding.item"], runs[2].model.state_dict()["embedding.item"]
    )


def test_the_test_day_is_not_trained_on(reader, make_samples, make_rows):
    rows = make_rows(150)
    for row in rows:
        if str(row["dt"]) == "2024-01-03":
            row["labels"] = [not label for label in row["labels"]]
    other = SamplesReader(make_samples(rows, "flipped", row_group_size=20))
    plain = Trainer(reader, make_spec(reader)).run()
    flipped = Trainer(other, make_spec(other)).run()
    assert_equal_weights(weights_of(plain), weights_of(flipped))
    assert plain.metrics.auc == pytest.approx(1 - flipped.metrics.auc)


class StopError(Exception):
    """Stands for a kill inside a process."""


@pytest.mark.parametrize("model", ["sum_pooling", "mimn"])
def test_a_resumed_run_ends_with_the_same_bits(reader, tmp_path, model):
    more = ["epochs=2", "checkpoint_every_steps=2"]
    if model == "mimn":
        more += ["slots=2", "controller=4", "channel_width=4"]
    spec = make_spec(reader, model, *more)
    whole = Trainer(reader, spec).run()

    def stop(report):
        if report.step == 9:
            raise StopError

    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(StopError):
        Trainer(reader, spec, checkpoint=checkpoint, watcher=Watcher(step=stop)).run()
    seen = []
    resumed = Trainer(
        reader,
        spec,
        checkpoint=checkpoint,
        watcher=Watcher(resumed=lambda progress: seen.append(progress.steps)),
    ).run()
    assert seen == [8]
    assert_equal_weights(weights_of(resumed), weights_of(whole))
    assert resumed.curve == whole.curve
    assert resumed.epochs == whole.epochs


def test_a_run_killed_with_signal_9_resumes_to_the_same_bundle(reader, tmp_path):
    spec = make_spec(reader, "sum_pooling", "epochs=2", "checkpoint_every_steps=3")
    whole = Trainer(reader, spec).run()
    script = textwrap.dedent(
        """
        import os, pickle, signal, sys
        from uic.models.samples.reader import SamplesReader
        from uic.models.training.trainer import Trainer, Watcher
        from pathlib import Path
        spec = pickle.loads(Path(sys.argv[2]).read_bytes())
        def step(report):
            if report.step == 7:
                os.kill(os.getpid(), signal.SIGKILL)
        Trainer(SamplesReader(Path(sys.argv[1])), spec, checkpoint=Path(sys.argv[3]),
                watcher=Watcher(step=step)).run()
        """
    )
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    checkpoint = tmp_path / "run.safetensors"
    killed = subprocess.run(
        [sys.executable, "-c", script, reader.root, tmp_path / "spec", checkpoint],
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert killed.returncode == -signal.SIGKILL
    assert load_checkpoint(checkpoint, spec.identity())[0].steps == 6
    resumed = Trainer(reader, spec, checkpoint=checkpoint).run()
    first = save_bundle(tmp_path / "a", whole)
    second = save_bundle(tmp_path / "b", resumed)
    assert first == second
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in "ab"]
    assert manifests[0] == manifests[1]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, "one", Progress(steps=3), {"x": torch.ones(2)})
    assert load_checkpoint(path, "one")[0].steps == 3
    with pytest.raises(BadInputError, match="checkpoint of another run"):
        load_checkpoint(path, "two")


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(BadInputError, match=r"run\.safetensors: not a checkpoint"):
        load_checkpoint(path, "one")


@pytest.mark.parametrize("model", ["sum_pooling", "mimn"])
def test_a_loss_that_is_not_a_number_names_step_and_file(reader, model):
    def poison(ranker, vocabulary):
        with torch.no_grad():
            ranker.embedding.item.fill_(float("nan"))

    spec = make_spec(reader, model)
    message = r"loss is nan at step 1 \(epoch 1, batch 1, \d+ groups from bucket-0000\d\.parquet"
    with pytest.raises(NonFiniteLossError, match=message):
        Trainer(reader, spec, prepare=poison).run()


def test_days_without_impressions_are_refused(reader):
    spec = make_spec(reader)
    days = replace(spec.days, first=date(1999, 1, 1), last=date(1999, 1, 2))
    with pytest.raises(BadInputError, match="no impressions from 1999-01-01 to 1999-01-02"):
        Trainer(reader, replace(spec, days=days)).run()


@pytest.fixture
def trained(reader):
    return Trainer(reader, make_spec(reader)).run()


@pytest.mark.parametrize("except_ids", [False, True])
def test_warm_start_copies_weights_and_ids_as_asked(reader, trained, tmp_path, except_ids):
    save_bundle(tmp_path / "sum_pooling" / "0001", trained)
    bundle = load_bundle(tmp_path / "sum_pooling" / "0001")
    fresh = build_model(make_spec(reader, seed=9), trained.vocabulary)
    random = fresh.embedding.item.clone()
    warm_start(bundle, except_ids=except_ids)(fresh, trained.vocabulary)
    old, new = trained.model.state_dict(), fresh.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in old if name.startswith("head."))
    known = trained.vocabulary.item.ids.size
    expected = random if except_ids else torch.cat([old["embedding.item"][:known], random[known:]])
    assert torch.equal(new["embedding.item"], expected)


def test_warm_start_from_other_widths_is_refused(reader, trained, tmp_path):
    save_bundle(tmp_path / "sum_pooling" / "0001", trained)
    bundle = load_bundle(tmp_path / "sum_pooling" / "0001")
    other = build_model(make_spec(reader, "sum_pooling", "head_widths=[9]"), trained.vocabulary)
    with pytest.raises(
        BundleError, match=r"tensor head\.layers\.1\.weight is \[8, 24\].*_widths=\[8\]"
    ):
        warm_start(bundle, except_ids=True)(other, trained.vocabulary)


@pytest.mark.parametrize(
    ("start", "run", "said"),
    [
        (
            ["mimn", "form=published", "embedding_std=0.1"],
            ["mimn"],
            "routing=false --set readout_products=false --set readout_controller=false, or",
        ),
        (["imn", "walk_sum=sum"], ["imn"], "train as it was trained, with --set walk_sum=sum, or"),
        (["din"], ["mimn"], "it is a bundle of din; start from one of the model to be trained"),
    ],
)
def test_a_warm_start_from_another_form_says_how_to_train(reader, tmp_path, start, run, said):
    trained = Trainer(reader, make_spec(reader, *start)).run()
    save_bundle(tmp_path / start[0] / "0001", trained)
    bundle = load_bundle(tmp_path / start[0] / "0001")
    other = build_model(make_spec(reader, *run), trained.vocabulary)
    with pytest.raises(BundleError, match=said):
        warm_start(bundle, except_ids=True)(other, trained.vocabulary)


def test_rows_that_a_batch_does_not_touch_stand_still(reader, trained):
    model = build_model(make_spec(reader), trained.vocabulary)
    before = model.embedding.item.clone()
    (raw,) = SamplesReader(reader.root).batches(BatchPlan(batch_impressions=10**6))
    batch = Encoder(trained.vocabulary).encode(raw.select(np.array([0, 1])))
    optimizer = Optimizer(model, learning_rate=0.1, decay_rate=0.9, decay_steps=10, gradient_clip=0)
    rows = model.embedding.rows(batch)
    model.outputs(batch, rows).logits.sum().backward()
    optimizer.step(batch, rows)
    moved = (model.embedding.item != before).any(1)
    assert moved.nonzero().flatten().tolist() == batch.items.tolist()


def test_row_adam_is_torchs_sparse_adam():
    table = torch.nn.Parameter(torch.randn(6, 3))
    ours = table.detach().clone()
    adam = RowAdam(ours)
    theirs = torch.optim.SparseAdam([table], lr=0.05)
    for step, touched in enumerate([[0, 2], [2, 5], [0, 1, 2], [4]], start=1):
        rows = torch.tensor(touched)
        gradient = torch.randn(len(touched), 3)
        table.grad = torch.sparse_coo_tensor(
            rows.unsqueeze(0), gradient, table.shape, check_invariants=True
        )
        theirs.step()
        adam.step(rows, gradient, 0.05, step)
    torch.testing.assert_close(ours, table.detach())


def test_the_rate_falls_by_the_decay_rate_every_decay_steps(reader, trained):
    model = build_model(make_spec(reader), trained.vocabulary)
    optimizer = Optimizer(model, learning_rate=0.1, decay_rate=0.9, decay_steps=10, gradient_clip=0)
    optimizer.steps = 20
    assert optimizer.rate == pytest.approx(0.1 * 0.9**2)


def test_gradients_are_clipped_over_all_weights_together(reader, trained):
    model = build_model(make_spec(reader), trained.vocabulary)
    optimizer = Optimizer(
        model, learning_rate=0.1, decay_rate=0.9, decay_steps=10, gradient_clip=1.0
    )
    (raw,) = reader.batches(BatchPlan(batch_impressions=10**6))
    batch = Encoder(trained.vocabulary).encode(raw)
    rows: BatchRows = model.embedding.rows(batch)
    (model.outputs(batch, rows).logits.square().sum() * 1e6).backward()
    optimizer.step(batch, rows)
    assert float(rows.items.grad.norm()) <= 1.0
