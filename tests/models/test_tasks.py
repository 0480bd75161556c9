"""Labels beside the click: a head each, a weight each, and nothing from what is not known."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.test_every_model import spec_of
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import NOT_KNOWN, concatenate
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.evaluation import score_tasks
from uic.models.training.loss import cross_entropy
from uic.models.training.trainer import Trainer

BUY = 'task_weights={"buy": 1}'
FASTER = ("learning_rate=0.02", "batch_impressions=32")


def with_labels(rows):
    """`buy` is that the item is of the upper half, `wish` is known of every other impression."""
    for row in rows:
        row["labels.buy"] = [item >= 20 for item in row["item_ids"]]
        row["labels.wish"] = [
            None if at % 2 else item % 3 == 0 for at, item in enumerate(row["item_ids"])
        ]
    return rows


def samples(make_samples, rows, **options) -> SamplesReader:
    return SamplesReader(make_samples(with_labels(rows), labels=("buy", "wish"), **options))


def whole(reader):
    return concatenate(list(reader.batches(BatchPlan(shuffle=False))))


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"prerank"}))
def test_a_label_is_learned_beside_the_click_and_comes_back(
    name, make_samples, make_rows, tmp_path
):
    reader = samples(make_samples, make_rows(200))
    trained = Trainer(reader, spec_of(name, reader, "epochs=3", *FASTER, BUY)).run()
    assert trained.metrics.tasks["buy"].auc > 0.9
    save_bundle(tmp_path / "bundles" / name / "0001", trained)
    loaded = load_bundle(tmp_path / "bundles" / name / "0001")
    assert loaded.model.tasks == {"buy": 1.0}
    assert loaded.metrics["test"]["tasks"]["buy"]["auc"] == trained.metrics.tasks["buy"].auc
    before, after = (
        score_tasks(one.model, reader.batches(BatchPlan(shuffle=False)), Encoder(one.vocabulary))
        for one in (trained, loaded)
    )
    assert np.array_equal(before.logits, after.logits)
    assert np.array_equal(before.tasks["buy"][0], after.tasks["buy"][0])
    assert not np.array_equal(before.logits, before.tasks["buy"][0])


def test_the_click_is_learned_as_without_the_task(make_samples, make_rows):
    reader = samples(make_samples, make_rows(600))
    more = ("epochs=6", *FASTER, "item_width=8")
    beside, alone = (
        Trainer(reader, spec_of("dnn", reader, *more, *task)).run().metrics for task in ((BUY,), ())
    )
    assert beside.tasks["buy"].auc > 0.95
    assert alone.tasks == {}
    assert alone.auc > 0.85
    assert abs(beside.auc - alone.auc) < 0.02


def test_a_model_without_a_head_says_that_it_takes_no_tasks(make_samples, make_rows):
    reader = samples(make_samples, make_rows(20))
    with pytest.raises(BadInputError, match="without task_weights"):
        Trainer(reader, spec_of("prerank", reader, BUY)).run()


def test_a_task_that_the_samples_do_not_have_is_refused_by_name(make_samples, make_rows):
    reader = samples(make_samples, make_rows(20))
    with pytest.raises(BadInputError, match=r"no label 'sell', it has: buy, wish; .*--label sell"):
        Trainer(reader, spec_of("dnn", reader, 'task_weights={"sell": 1}')).run()


def test_labels_of_the_samples_that_are_no_task_change_no_byte(make_samples, make_rows, tmp_path):
    plain = SamplesReader(make_samples(make_rows(60), "plain"))
    labelled = samples(make_samples, make_rows(60), name="labelled")
    for name, reader in (("0001", plain), ("0002", labelled)):
        trained = Trainer(reader, spec_of("din", reader)).run()
        save_bundle(tmp_path / "bundles" / "din" / name, trained)
    one, two = (load_bundle(tmp_path / "bundles" / "din" / name) for name in ("0001", "0002"))
    assert one.hash8 == two.hash8
    config = json.loads((one.path / "config.json").read_text())
    assert "task_weights" not in config["training"]
    assert not [key for key in one.model.state_dict() if key.startswith("task")]


@given(
    st.lists(st.sampled_from([1, 0, NOT_KNOWN]), min_size=6, max_size=6),
    st.lists(st.floats(-5, 5, width=32), min_size=12, max_size=12),
)
@settings(max_examples=50, deadline=None)
def test_what_is_not_known_gives_no_loss_and_no_gradient(labels, numbers):
    known = np.array(labels) >= 0
    logits = torch.tensor(numbers).reshape(6, 2).requires_grad_()

    @dataclasses.dataclass
    class Six:
        labels: torch.Tensor
        extra_labels: dict[str, torch.Tensor]

    batch = Six(torch.tensor([1.0, 0, 1, 0, 1, 0]), {"buy": torch.tensor(labels)})
    click = cross_entropy(logits[:, 0], batch, {})
    loss = cross_entropy(logits, batch, {"buy": 2.0})
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[~known, 1] == 0).all()
    assert (gradient[known, 1] != 0).all()
    (of_click,) = torch.autograd.grad(click, logits)
    assert torch.equal(gradient[:, 0], of_click[:, 0])
    task = logits.detach().numpy().astype(np.float64)[known, 1]
    expected = np.logaddexp(0, task) - task * (np.array(labels)[known] == 1)
    assert float((loss - click).detach()) == pytest.approx(2 * expected.sum() / 6, abs=1e-5)
    # Parts of a batch add up, whatever of each is known.
    parts = []
    for part in (slice(0, 2), slice(2, 6)):
        piece = Six(batch.labels[part], {"buy": batch.extra_labels["buy"][part]})
        parts.append(float(cross_entropy(logits.detach()[part], piece, {"buy": 2.0}, 6)))
    assert sum(parts) == pytest.approx(float(loss.detach()), abs=1e-5)


def test_unknown_labels_are_left_out_of_the_metrics(make_samples, make_rows):
    reader = samples(make_samples, make_rows(60))
    trained = Trainer(reader, spec_of("dnn", reader, 'task_weights={"wish": 1, "buy": 3}')).run()
    wish = trained.metrics.tasks["wish"]
    test = list(reader.batches(BatchPlan(shuffle=False, first=trained.spec.days.test_first)))
    labels = np.concatenate([batch.extra_labels["wish"] for batch in test])
    assert 0 < wish.impressions == (labels >= 0).sum() < trained.metrics.impressions
    assert wish.clicks == (labels == 1).sum()
    again = type(trained.metrics).from_json(json.loads(json.dumps(trained.metrics.to_json())))
    assert again == trained.metrics


def test_a_task_that_a_bundle_does_not_know_begins_anew_after_a_warm_start(
    make_samples, make_rows, tmp_path
):
    reader = samples(make_samples, make_rows(60))
    save_bundle(tmp_path / "dnn" / "0001", Trainer(reader, spec_of("dnn", reader)).run())
    start = load_bundle(tmp_path / "dnn" / "0001")
    prepare = warm_start(start, except_ids=False)
    trained = Trainer(reader, spec_of("dnn", reader, BUY), prepare=prepare).run()
    assert trained.metrics.tasks["buy"].impressions == trained.metrics.impressions


def test_groups_keep_their_labels_when_they_are_chosen_and_taken_apart(make_samples, make_rows):
    reader = samples(make_samples, make_rows(30))
    batch = whole(reader)
    expected = batch.item_ids >= 20
    assert np.array_equal(batch.extra_labels["buy"] == 1, expected)
    chosen = batch.select(np.array([3, 1]))
    assert np.array_equal(chosen.extra_labels["buy"] == 1, chosen.item_ids >= 20)
    apart = batch.ungrouped()
    assert np.array_equal(apart.extra_labels["buy"], batch.extra_labels["buy"])
    positions = np.arange(batch.impressions) - batch.impression_offsets[batch.impression_groups]
    assert np.array_equal(batch.extra_labels["wish"] == NOT_KNOWN, positions % 2 == 1)
