"""Writing a simulation into the event log of a workspace, day by day, as one import.

`uic simulate --workspace DIR` runs this. The manifest keeps the plan, so that a log says how to
make it again, and the best reachable AUC, so that a model's AUC can be read against it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part, Publication
from uic.pipelines.settings import LogSettings
from uic.pipelines.simulator.ceilings import Ceilings
from uic.pipelines.simulator.days import FAST_MS
from uic.pipelines.simulator.feature_files import write_features
from uic.pipelines.simulator.generator import Simulation, behaviors_table, impressions_table
from uic.pipelines.simulator.oracle import BestAuc
from uic.pipelines.simulator.plan import SimulationPlan, SimulationPlanError

Progress = Callable[[int, int], None]

EPOCH_NAME = "simulated"
NOTES = (
    "Simulated: users, items and clicks are drawn, see `details.plan`.",
    "Impressions have `click_probability`, what `clicked` was drawn with; no model may see it.",
)


@dataclass(frozen=True)
class SimulatedLog:
    """What was written, and what the best ranking of it could reach.

    Attributes:
        publication: rows, users, items, days and bytes.
        clicks: clicked impressions.
        best_auc: AUC of the click probabilities; None if all or none was clicked.
        best_ordinary_auc: the same without sale days.
        unaided_auc: with features, the best AUC without knowing them.
        features: with features, the file that names them.
        ceilings: AUC by what is known (`uic.pipelines.simulator.ceilings`); None without signals,
            if it was not asked for.
    """

    publication: Publication
    clicks: int
    best_auc: float | None
    best_ordinary_auc: float | None
    unaided_auc: float | None = None
    features: Path | None = None
    ceilings: Mapping[str, float | None] | None = None


def write_simulation(
    plan: SimulationPlan,
    log: EventLog,
    settings: LogSettings,
    *,
    workspace: Path | None = None,
    explain: bool = False,
    generated: Progress | None = None,
    written: Progress | None = None,
) -> SimulatedLog:
    """Simulate `plan` into an empty log.

    Args:
        plan: what to simulate.
        log: where to.
        settings: partitions of the import, and what event times its parser would accept.
        workspace: where features go; None is the folder of the log's.
        explain: find the ceilings also without signals.
        generated: called with (days generated, days in all).
        written: called with (days written, days in all), behaviours and impressions apart.

    Raises:
        SimulationPlanError: the log holds something, or `late_share` would make event times
            that the settings reject.
        LogBusyError: another process writes to the log.
        LogWriteError: the disk is full, or the like.
    """
    _check(plan, log, settings)
    simulation = Simulation(plan)
    everything, ordinary, unaided = BestAuc(), BestAuc(), BestAuc()
    ceilings = Ceilings(plan) if explain or plan.signals else None
    details: dict[str, Any] = {"plan": plan.to_json()}
    part = Part(EPOCH_NAME, sources=[_source(plan)], notes=NOTES, details=details)
    with LogWriter(log, part, time_zone=plan.time_zone, partitions=settings.partitions) as writer:
        catalogue = simulation.catalogue
        writer.add_items(pa.array(catalogue.item_ids), pa.array(catalogue.category_of_row + 1))
        for day in range(plan.days):
            sale = plan.day(day) in plan.sale_days
            for chunk in simulation.chunks(day):
                writer.add_behaviors(behaviors_table(chunk))
                writer.add_impressions(impressions_table(chunk))
                everything.add(chunk.click_probability, chunk.clicked)
                unaided.add(chunk.unaided_probability, chunk.clicked)
                if ceilings is not None:
                    ceilings.add(chunk)
                if not sale:
                    ordinary.add(chunk.click_probability, chunk.clicked)
            if generated is not None:
                generated(day + 1, plan.days)
        details["best_reachable_auc"] = everything.auc()
        details["best_reachable_auc_without_sale_days"] = ordinary.auc()
        details["impressions_clicked"] = everything.clicks
        if ceilings is not None and plan.signals:
            details["ceilings"] = ceilings.table()
        features = None
        if simulation.features is not None:
            details["best_reachable_auc_without_features"] = unaided.auc()
            features = write_features(simulation.features, catalogue, workspace or log.root.parent)
        publication = writer.publish(written)
    return SimulatedLog(
        publication,
        everything.clicks,
        everything.auc(),
        ordinary.auc(),
        unaided.auc() if features else None,
        features,
        None if ceilings is None else ceilings.table(),
    )


def _check(plan: SimulationPlan, log: EventLog, settings: LogSettings) -> None:
    epochs = log.epochs()
    if epochs:
        msg = (
            f"{log.root}: holds {epochs[-1].name!r} already; simulated users would mix with its "
            "users: use another --workspace"
        )
        raise SimulationPlanError(msg)
    if plan.late_share and settings.max_clock_skew_seconds * 1000 < FAST_MS:
        msg = (
            f"simulate: --late-share makes clocks up to {FAST_MS // 1000} s fast, "
            f"log.max_clock_skew_seconds is {settings.max_clock_skew_seconds}; raise it"
        )
        raise SimulationPlanError(msg)


def _source(plan: SimulationPlan) -> dict[str, Any]:
    """A plan stands for the bytes that it makes, as the sum of a file does in an import."""
    text = json.dumps(plan.to_json(), sort_keys=True).encode()
    return {
        "name": f"simulation of seed {plan.seed}",
        "bytes": len(text),
        "sha256": hashlib.sha256(text).hexdigest(),
    }
