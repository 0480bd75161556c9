"""`uic compare A B …`: bundles on the same impressions, with intervals of their differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from uic.jobs.config.context import Context
from uic.jobs.config.progress import Progress
from uic.jobs.training.measure import seen_days
from uic.jobs.training.run import check_device, open_samples, with_images
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import BadInputError
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.evaluation import score
from uic.models.training.metrics import auc
from uic.models.training.paired import Difference, difference, standard_error


@dataclass(frozen=True)
class CompareRequest:
    """What to compare; `uic.Workspace.compare` describes each field."""

    bundles: Sequence[str]
    samples: str
    first: date | None = None
    last: date | None = None
    device: str = "auto"


@dataclass(frozen=True)
class ComparedBundles:
    """One model of a comparison.

    Attributes:
        label: `model/version`, of several seeds joined by commas.
        auc: mean over them.
        standard_error: of that mean over seeds; None for one bundle.
        difference: to the first of the comparison; None for the first itself.
        remarks: what a person should know before they trust it.
    """

    label: str
    auc: float
    standard_error: float | None
    difference: Difference | None
    remarks: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Models on the same impressions.

    Attributes:
        rows: as they were asked for; differences are to the first.
        days: first and last day.
        impressions: that were scored.
        users: that were drawn from.
    """

    rows: Sequence[ComparedBundles]
    days: tuple[date, date]
    impressions: int
    users: int


def compare_bundles(context: Context, request: CompareRequest, progress: Progress) -> Comparison:
    """Score the impressions of some days with every bundle; the last day if none is named.

    Raises:
        BadInputError: fewer than two models, no such bundle or samples, commas between bundles of
            several models or one bundle twice, or days on which all or none are clicked.
    """
    if len(request.bundles) < 2:
        msg = f"compare {' '.join(request.bundles)}: needs two bundles or more, as in `A B`"
        raise BadInputError(msg)
    device = check_device(request.device)
    reader = open_samples(context, request.samples)
    days = reader.days()
    first = request.first or (days[0] if request.last else days[-1])
    last = request.last or days[-1]
    plan = BatchPlan(first=first, last=last, shuffle=False)
    _, clicked = reader.shown_items(plan)
    if not 0 < int(clicked.sum()) < len(clicked):
        msg = (
            f"{reader.root}: {int(clicked.sum())} clicks in {len(clicked)} impressions from "
            f"{first} to {last} have no AUC; choose other days with --first and --last"
        )
        raise BadInputError(msg)
    shelf = BundleShelf(context.bundles)
    groups = [
        [load_bundle(shelf.find(name)) for name in text.split(",")] for text in request.bundles
    ]
    for text, group in zip(request.bundles, groups, strict=True):
        _check_seeds(text, group)
    total, done = sum(len(group) for group in groups), 0
    found: list[_Scored] = []
    for group in groups:
        scores = []
        for bundle in group:
            progress("scoring bundles", done, total)
            scores.append(_score(context, bundle, reader, plan, device))
            done += 1
        progress("scoring bundles", done, total)
        found.append(_Scored(group, scores))
    labels, users = _labels_and_users(reader, plan)
    rows = [_row(one, found[0], labels, users, (first, last)) for one in found]
    return Comparison(rows, (first, last), labels.size, np.unique(users).size)


def _check_seeds(text: str, group: Sequence[Bundle]) -> None:
    """Refuse bundles whose mean and standard error would say nothing of one model.

    Raises:
        BadInputError: of several models, or one of them twice.
    """
    models = sorted({bundle.name for bundle in group})
    if len(models) > 1:
        msg = (
            f"compare {text}: commas join seeds of one model, these are {' and '.join(models)}; "
            "put a space between models"
        )
        raise BadInputError(msg)
    if len({bundle.hash8 for bundle in group}) < len(group):
        msg = f"compare {text}: one bundle twice is not two seeds; train with another --seed"
        raise BadInputError(msg)


@dataclass(frozen=True)
class _Scored:
    bundles: list[Bundle]
    scores: list[NDArray[np.float64]]


def _score(
    context: Context, bundle: Bundle, reader: SamplesReader, plan: BatchPlan, device: str
) -> NDArray[np.float64]:
    """(impressions,) logits of a click."""
    reader.require(bundle.vocabulary.features.definitions, _label(bundle))
    reader.require(bundle.vocabulary.events.definitions, _label(bundle))
    _, images = with_images(context, bundle.settings, trained=True)
    bundle.model.attach_images(images)
    encoder = Encoder(bundle.vocabulary, device)
    scores, _, _ = score(bundle.model.to(device), reader.batches(plan), encoder)
    bundle.model.cpu()
    return scores


def _labels_and_users(
    reader: SamplesReader, plan: BatchPlan
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(impressions,) each, in the order of the scores."""
    batches = [
        (batch.labels, batch.user_ids[batch.impression_groups]) for batch in reader.batches(plan)
    ]
    labels, users = zip(*batches, strict=True)
    return np.concatenate(labels), np.concatenate(users)


def _row(
    one: _Scored,
    base: _Scored,
    labels: NDArray[np.bool_],
    users: NDArray[np.int64],
    days: tuple[date, date],
) -> ComparedBundles:
    areas = [auc(scores, labels) for scores in one.scores]
    return ComparedBundles(
        label=",".join(_label(bundle) for bundle in one.bundles),
        auc=float(np.mean(areas)),
        standard_error=standard_error(areas),
        difference=None if one is base else difference(one.scores, base.scores, labels, users),
        remarks=[line for bundle in one.bundles for line in seen_days(bundle, days)],
    )


def _label(bundle: Bundle) -> str:
    return f"{bundle.name}/{bundle.version}"
