"""IMN: against its formulas, against the plain form of its attention, and its bad input."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.imn.attention import MultiWayAttention, Sight
from uic.models.rankers.imn.settings import Attention, Distance
from uic.models.rankers.imn.views import MissingTimesError, elapsed_buckets, views_of
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.run_spec import SettingError, apply_settings
from uic.models.training.settings import TrainSettings

_SPEC = importlib.util.spec_from_file_location("family", Path(__file__).parent / "family.py")
family = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(family)

CLOCK = (
    "walk_sum=sum",
    "context_std=0.6",
    "history_limit=6",
    "attention_width=3",
    "ranking_clock_seconds=2000",
)
VARIANTS = {
    "3P+": (),
    "2P": ("iterations=2", "enhancement_steps=0"),
    "softmax": ("attention=softmax",),
    "own attention": ("shared_attention=false",),
    "dot": ("distance=dot",),
    "no Euclidean": ("distance=hadamard",),
    "no walk": ("iterations=0", "enhancement_steps=0"),
    "no attention": ("attention=none", "iterations=0", "enhancement_steps=0"),
    "delayed": ("cross=delayed", "enhancement_steps=0"),
    "delayed, no Euclidean": ("cross=delayed", "enhancement_steps=0", "distance=hadamard"),
    "delayed, dot": ("cross=delayed", "enhancement_steps=0", "distance=dot"),
    "pieces": ("segment_events=2",),
    "from the oldest": ("positions=oldest",),
    "no times": ("time_buckets=0", "positions=none"),
    "few buckets": ("time_buckets=3",),
    "mean": ("walk_sum=mean",),
    "norm": ("walk_sum=norm",),
    "mean, softmax": ("walk_sum=mean", "attention=softmax"),
    "norm, softmax": ("walk_sum=norm", "attention=softmax"),
    "norm, pieces": ("walk_sum=norm", "segment_events=2"),
    "norm, no walk": ("walk_sum=norm", "iterations=0", "enhancement_steps=0"),
    "norm, delayed": ("walk_sum=norm", "cross=delayed", "enhancement_steps=0"),
}


@pytest.fixture
def data(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(20, longest=9)))
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    (batch,) = reader.batches(BatchPlan())
    return family.with_times(batch), vocabulary


@pytest.mark.parametrize("variant", VARIANTS)
def test_imn_is_its_formula(variant, data):
    batch, vocabulary = data
    model = family.build("imn", vocabulary, *CLOCK, *VARIANTS[variant]).eval()
    expected = family.literal_logits(model, model.settings, batch, vocabulary, family.literal.imn)
    with torch.no_grad():
        found = model(family.encode(batch, vocabulary)).numpy()
    assert found == pytest.approx(expected, abs=1e-9)
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize("variant", ["3P+", "softmax", "dot", "delayed", "pieces", "norm"])
def test_gradients_are_the_slopes_of_the_loss(variant, data):
    batch, vocabulary = data
    model = family.build("imn", vocabulary, *CLOCK, *VARIANTS[variant]).eval()
    family.check_gradients(model, family.encode(batch, vocabulary))


def plain_sums(attention, x, memory, target, sight):
    """Eq. 2, 3 and 5 with the whole of [x - m, x - v, x * m, x * v]."""
    rows = []
    for query, view in enumerate(sight.view_of.tolist()):
        seen = x[view, int(sight.firsts[query]) : int(sight.ends[query])]
        m, v = memory[query].expand_as(seen), target[query].expand_as(seen)
        inputs = torch.cat([seen - m, seen - v, seen * m, seen * v], dim=1)
        scores = attention.second(torch.sigmoid(attention.first(inputs))).squeeze(1)
        weights = scores.softmax(0) if attention.softmax else torch.sigmoid(scores)
        rows.append(weights @ seen)
    return torch.stack(rows)


@pytest.mark.parametrize("weighting", [Attention.SIGMOID, Attention.SOFTMAX])
@pytest.mark.parametrize("tile", [1, 200, 1 << 18])
def test_the_algebra_is_the_plain_form(weighting, tile, monkeypatch):
    """Forward and all gradients, for views with many and with no queries, whatever the tiles."""
    monkeypatch.setattr("uic.models.rankers.imn.tiles._TILE", {False: tile})
    torch.manual_seed(0)
    attention = MultiWayAttention(4, 3, Distance.MULTIWAY, weighting).double()
    with torch.no_grad():
        attention.first.weight.mul_(3)
        attention.second.weight.mul_(3)
    x, memory, target = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((4, 7, 4), (11, 4), (11, 4))
    )
    views = torch.tensor([3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3])
    sight = Sight(
        views,
        torch.tensor([0, 0, 1, 2, 0, 0, 6, 7, 3, 0, 0]),
        torch.tensor([7, 7, 6, 4, 0, 1, 7, 7, 4, 7, 5]),
    )
    wanted = torch.randn(11, 4, dtype=torch.float64)
    results = []
    for sums in (
        attention(x, memory, target, sight),
        plain_sums(attention, x, memory, target, sight),
    ):
        inputs = (x, memory, target, *attention.parameters())
        results.append([sums, *torch.autograd.grad((sums * wanted).sum(), inputs)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)


def test_no_hidden_layer_of_all_pairs_is_kept_for_the_backward_pass():
    queries, steps, hidden = 100, 1000, 8
    attention = MultiWayAttention(32, hidden)
    x = torch.randn(1, steps, 32, requires_grad=True)
    views = torch.zeros(queries, dtype=torch.int64)
    sight = Sight(views, views, torch.full((queries,), steps))
    kept: list[int] = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention(x, torch.randn(queries, 32), torch.randn(queries, 32), sight)
    assert 0 < sum(kept) < queries * steps * hidden / 2


def test_all_candidates_of_a_request_share_one_view(data):
    batch, vocabulary = data
    one = batch.select(np.array([int(np.argmax(np.diff(batch.impression_offsets)))]))
    one = replace(
        one,
        history_lengths=np.full_like(one.history_lengths, one.events),
        event_times_ms=np.full_like(one.event_times_ms, 500_000_000),
    )
    assert one.impressions > 1
    views = views_of(family.encode(one, vocabulary), family.build("imn", vocabulary).settings)
    assert views.events.shape[0] == 1


def test_elapsed_times_double_from_bucket_to_bucket():
    elapsed = np.array([-5, 0, 999, 1000, 1999, 2000, 3999, 4000, 7999, 8000, 10**9])
    assert elapsed_buckets(elapsed, 1.0, 20).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 19]
    assert elapsed_buckets(elapsed, 1.0, 3).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2]


def test_without_attention_it_is_average_pooling(data):
    batch, vocabulary = data
    plain = family.build("average_pooling", vocabulary).eval()
    model = family.build("imn", vocabulary, *VARIANTS["no attention"], *VARIANTS["no times"]).eval()
    model.load_state_dict(plain.state_dict())
    encoded = family.encode(batch, vocabulary)
    torch.testing.assert_close(model(encoded), plain(encoded), rtol=0, atol=1e-9)


def test_entropy_of_equal_weights_is_the_log_of_the_length(data):
    batch, vocabulary = data
    model = family.build("imn", vocabulary, *CLOCK).eval()
    with torch.no_grad():
        for attention in model.walk.attentions:
            attention.second.weight.zero_()
    entropies = model.attention_entropies(family.encode(batch, vocabulary))
    lengths = np.minimum(batch.history_lengths, 6)
    expected = np.log(lengths[lengths > 0]).mean()
    assert entropies.numpy() == pytest.approx(np.full(3, expected), abs=1e-9)


def test_attention_that_is_sure_of_one_event_has_less_entropy(data):
    batch, vocabulary = data
    model = family.build("imn", vocabulary, *CLOCK, "attention=softmax").eval()
    before = model.attention_entropies(family.encode(batch, vocabulary))
    with torch.no_grad():
        model.walk.attentions[0].second.weight.mul_(30)
    assert (model.attention_entropies(family.encode(batch, vocabulary)) < before).all()


@pytest.mark.parametrize("column", ["history_times_ms", "event_times_ms"])
def test_missing_times_are_named(column, data):
    batch, vocabulary = data
    times = getattr(batch, column).copy()
    times[:3] = np.iinfo(np.int64).min
    model = family.build("imn", vocabulary)
    name = column.removesuffix("_ms")
    with pytest.raises(MissingTimesError, match=rf"{name}: 3 of \d+ have no time.*time_buckets=0"):
        model(family.encode(replace(batch, **{column: times}), vocabulary))
    with pytest.raises(MissingTimesError, match=f"{name}: {times.size} of"):
        model(family.encode(replace(batch, **{column: times[:0]}), vocabulary))
    without = family.build("imn", vocabulary, "time_buckets=0")
    without(family.encode(replace(batch, **{column: times[:0]}), vocabulary))


def test_variants_that_contradict_themselves_are_refused():
    for settings, expected in (
        (["cross=delayed"], "set enhancement_steps=0"),
        (["attention=none"], "is average pooling"),
        (["segment_events=9", "iterations=0"], "needs a walk"),
        (["segment_events=9", "cross=delayed", "enhancement_steps=0"], "set cross=early"),
    ):
        with pytest.raises(SettingError, match=expected):
            apply_settings("imn", TrainSettings(), settings)


def test_histories_of_nothing_are_scored(data):
    batch, vocabulary = data
    empty = batch.select(np.flatnonzero(np.diff(batch.history_offsets) == 0))
    assert empty.impressions
    for variant in VARIANTS.values():
        model = family.build("imn", vocabulary, *CLOCK, *variant).eval()
        assert torch.isfinite(model(family.encode(empty, vocabulary))).all()
    assert MODELS["imn"].title == "IMN"
