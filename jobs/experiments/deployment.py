"""`uic experiment out-of-sync|big-sale`: MIMN's table 5, what production does to AUC.

* `out-of-sync`: memories are folded by yesterday's bundle and read by today's, which was trained
  on from it, as happens while a deploy is under way.
* `big-sale`: the same model trained with and without the sale days, on two sets of samples.
"""

import json
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, cast

from uic.jobs.config.console import ERR
from uic.jobs.experiments.runs import Request, RowResult, result_path, run_rows, run_spec
from uic.jobs.experiments.tables import TABLES, Row, Table
from uic.jobs.training.publish import state_of
from uic.jobs.training.run import checkpoint_path, watched
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.features.event_columns import event_columns
from uic.models.published import MANIFEST_NAME, write_json_atomically
from uic.models.rankers.mimn import Mimn
from uic.models.rankers.out_of_step import OutOfStep
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.evaluation import evaluate
from uic.models.training.run_spec import Days, RunSpec
from uic.models.training.trainer import Trainer

OUT_OF_SYNC: Final = "out-of-sync"
BIG_SALE: Final = "big-sale"
_SAME, _APART, _OLD = TABLES[OUT_OF_SYNC].rows[:3]
_WITHOUT, _WITH = TABLES[BIG_SALE].rows[:2]


# ---------------------------------------------------------------------------- out of step


@dataclass(frozen=True)
class _Deploy:
    """Two bundles of one seed: yesterday's, and today's that was trained on from it."""

    before: Bundle
    after: Bundle


def out_of_sync(table: Table, request: Request) -> list[RowResult]:
    """Memory and ranker of one bundle, a day apart, and both a day older, on the same test.

    Raises:
        BadInputError: there are fewer than two days to train on.
    """
    runs: dict[str, list[dict[str, Any]]] = {row.label: [] for row in table.rows}
    for seed in range(request.repeats):
        specs = _specs(request, seed)
        path = result_path(request, specs[1]).with_suffix(".out-of-sync.json")
        if path.exists():
            ERR.print(f"seed {seed}: done before, {path}", markup=False)
        else:
            write_json_atomically(path, _measured(request, _deployed(request, *specs), specs[1]))
        document = json.loads(path.read_text(encoding="utf-8"))
        for row in (_SAME, _APART, _OLD):
            runs[row.label].append({"epochs": [document[row.label]]})
    return [RowResult(row, runs[row.label]) for row in table.rows]


def _specs(request: Request, seed: int) -> tuple[RunSpec, RunSpec]:
    """All days but the last of training, then that one day alone; the same test."""
    whole = run_spec(request, Row("out of step", "mimn"), seed)
    days = [day for day in request.reader.days() if whole.days.first <= day <= whole.days.last]
    if len(days) < 2:
        msg = (
            f"{request.reader.root}: {len(days)} day(s) to train on ({whole.days.first} to "
            f"{whole.days.last}), out-of-sync needs 2: all but the last, then the last alone"
        )
        raise BadInputError(msg)
    test = (whole.days.test_first, whole.days.test_last)
    before = replace(whole, days=Days(days[0], days[-2], *test))
    # Two epochs of one day would be an echo of it: a day is passed over once, as a server would.
    once = whole.training.model_copy(update={"epochs": 1})
    after = replace(whole, days=Days(days[-1], days[-1], *test), training=once)
    # Until the bundle has a hash, what decides its weights stands for it.
    return before, replace(after, warm_start=before.identity())


def _deployed(request: Request, first: RunSpec, second: RunSpec) -> _Deploy:
    before = _trained(request, first, None)
    after = _trained(request, second, before)
    if before.hash8 not in after.readout_compatible_with:
        msg = f"{after.path}: its readout does not declare memories of {before.path} as understood"
        raise BundleError(msg)
    return _Deploy(before, after)


def _trained(request: Request, spec: RunSpec, start: Bundle | None) -> Bundle:
    """The bundle of a run, trained now or before."""
    root = request.context.reports / "experiments" / "bundles" / "mimn"
    path = root / spec.identity()[:16]
    if not (path / MANIFEST_NAME).exists():
        checkpoint = checkpoint_path(request.context.workspace, spec)
        title = f"{spec.days.first} to {spec.days.last} seed {spec.seed}"
        with watched(request.reader, spec, title) as watcher:
            trained = Trainer(
                request.reader,
                spec,
                device=request.device,
                checkpoint=checkpoint,
                watcher=watcher,
                prepare=None if start is None else warm_start(start, except_ids=False),
            ).run()
        known = () if start is None else tuple(start.readout_compatible_with)
        columns = event_columns(request.reader.event_features)
        save_bundle(path, trained, known, state_of(request.reader, trained), columns)
        checkpoint.unlink(missing_ok=True)
    return load_bundle(path)


def _measured(request: Request, deploy: _Deploy, spec: RunSpec) -> dict[str, object]:
    days = spec.days
    plan = BatchPlan(
        batch_impressions=spec.training.batch_impressions,
        batch_events=spec.training.batch_events,
        shuffle=False,
        first=cast("date", days.test_first),
        last=cast("date", days.test_last),
    )

    def auc_of(ranker: Bundle, memory: Bundle) -> dict[str, object]:
        apart = OutOfStep(
            cast("Mimn", ranker.model), cast("Mimn", memory.model), Encoder(memory.vocabulary)
        )
        batches = request.reader.batches(plan)
        # A module that scores batches, which is all that `evaluate` asks of a ranker.
        return dict(evaluate(cast("Ranker", apart), batches, Encoder(ranker.vocabulary)).to_json())

    before, after = deploy.before, deploy.after
    return {
        _SAME.label: auc_of(after, after),
        _APART.label: auc_of(after, before),
        _OLD.label: auc_of(before, before),
        "bundles": [before.hash8.hex(), after.hash8.hex()],
    }


# ---------------------------------------------------------------------------- sale days


def big_sale(table: Table, request: Request, sale_reader: SamplesReader | None) -> list[RowResult]:
    """Train on samples without and with sale days, tested on the same impressions.

    Raises:
        BadInputError: the second samples are missing, or are not of the same log.
    """
    if sale_reader is None:
        msg = "big-sale: needs --sale-samples, made with `sale: {behaviors: keep, …}`"
        raise BadInputError(msg)
    both = replace(request, reader=sale_reader)
    without = run_spec(request, _WITHOUT, 0).days
    with_them = run_spec(both, _WITH, 0).days
    test = (without.test_first, without.test_last)
    shown = [
        reader.totals(BatchPlan(first=without.test_first, last=without.test_last)).impressions
        for reader in (request.reader, sale_reader)
    ]
    if (with_them.test_first, with_them.test_last) != test or shown[0] != shown[1]:
        msg = (
            f"{request.reader.name} is tested on {test[0]} ({shown[0]:,} impressions), "
            f"{sale_reader.name} on {with_them.test_first} ({shown[1]:,}); expected the same "
            "impressions: make both samples of the same days, and test on no sale day"
        )
        raise BadInputError(msg)
    trained_on = [
        reader.totals(BatchPlan(first=days.first, last=days.last)).impressions
        for reader, days in ((request.reader, without), (sale_reader, with_them))
    ]
    if trained_on[0] >= trained_on[1]:
        msg = (
            f"{request.reader.name} has {trained_on[0]:,} impressions to train on, "
            f"{sale_reader.name} has {trained_on[1]:,}; expected more with sale days than without"
        )
        raise BadInputError(msg)
    first = run_rows(request, table, [_WITHOUT])
    return [*first, *run_rows(both, table, [_WITH]), *(RowResult(r, []) for r in table.rows[2:])]
