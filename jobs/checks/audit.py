"""`uic audit` without its command line: every generation of a workspace's store, and the table."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from uic.jobs.config.context import Context
from uic.pipelines.audit.compare import Verdict
from uic.pipelines.audit.memories import AuditError, AuditRequest, audit_generation
from uic.pipelines.audit.report import GenerationAudit
from uic.pipelines.audit.served import ServedAudit, audit_served
from uic.pipelines.audit.settings import AuditSettings

if TYPE_CHECKING:
    from feast import FeatureStore

_FEAST_ROWS = 500
REPORT_NAME = "audit.json"
AUDITED_STATES = ("ready", "live", "retired")


class FeastMemories:
    """Memories as Feast serves them, `get_online_features` on `user_interest:memory`.

    Args:
        store: whose registry has the definitions (`feast apply`).
    """

    def __init__(self, store: "FeatureStore") -> None:
        self._store: Any = store

    def read(
        self, user_ids: NDArray[np.int64], record_bytes: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(users, record_bytes), zero where nothing is served, and (users,): found."""
        values: list[bytes | None] = []
        ids = user_ids.tolist()
        for at in range(0, len(ids), _FEAST_ROWS):
            answer = self._store.get_online_features(
                features=["user_interest:memory"],
                entity_rows=[{"user_id": user} for user in ids[at : at + _FEAST_ROWS]],
            )
            values += answer.to_dict()["memory"]
        found = np.array([value is not None for value in values], dtype=np.bool_)
        other = next((v for v in values if v is not None and len(v) != record_bytes), None)
        if other is not None:
            msg = f"Feast serves a memory of {len(other)} bytes, expected {record_bytes}"
            raise AuditError(msg)
        joined = b"".join(bytes(record_bytes) if value is None else value for value in values)
        return np.frombuffer(joined, dtype=np.uint8).reshape(len(values), record_bytes), found


def run_audit(
    context: Context,
    settings: AuditSettings,
    only: int | None,
    progress: Callable[[int, int, int], None] = lambda _generation, _done, _total: None,
) -> list[GenerationAudit]:
    """Audit one generation, or all that are ready, live or retired.

    Args:
        context: workspace and configuration.
        settings: the section `audit`, as changed on the command line.
        only: number of a generation; None for all.
        progress: gets the generation, and rows of the log that were read, of how many.

    Raises:
        AuditError: there is nothing to audit, or what it needs is gone.
        StoreError: the store does not answer, or is empty.
    """
    from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store  # noqa: PLC0415
    from uic.feature_repo.store.errors import EmptyStoreError  # noqa: PLC0415 - Feast takes seconds
    from uic.feature_repo.store.opened import open_memories  # noqa: PLC0415

    request = AuditRequest(
        log=context.log,
        memories=context.memories,
        bundles=context.bundles,
        scratch=Path(),
        settings=settings,
    )
    config = context.config.store
    with open_memories(config, context.workspace) as store:
        generations = [
            generation
            for generation in store.generations.all()
            if generation.state in AUDITED_STATES and only in (None, generation.number)
        ]
        if not generations:
            wanted = "is ready, live or retired" if only is None else f"with number {only} is ready"
            msg = f"{store.address}: no generation {wanted}; `uic memories list` shows all"
            raise AuditError(msg)
        try:
            live: int | None = store.generations.live()
        except EmptyStoreError:
            live = None
        feast = None
        if settings.feast_users and live is not None:
            served = open_feature_store(config, context.workspace)
            apply_definitions(served, context.workspace)
            feast = FeastMemories(served)
        audits = []
        for generation in generations:
            number = generation.number
            with tempfile.TemporaryDirectory(dir=context.workspace, prefix=".audit-") as scratch:
                audits.append(
                    audit_generation(
                        request.in_folder(Path(scratch) / "spool"),
                        store,
                        generation,
                        feast if number == live else None,
                        lambda done, total, number=number: progress(number, done, total),  # type: ignore[misc]
                    )
                )
    return audits


def run_served_audit(context: Context, settings: AuditSettings) -> ServedAudit | None:
    """Hold what the service wrote down (`serve.log_features`) against the log; None for nothing.

    Raises:
        AuditError: snapshots that it needs are gone.
    """
    request = AuditRequest(context.log, context.memories, context.bundles, Path(), settings)
    with tempfile.TemporaryDirectory(dir=context.workspace, prefix=".audit-") as scratch:
        features = context.workspace / "serving" / "features"
        return audit_served(request.in_folder(Path(scratch) / "spool"), features)


def audit_table(audits: list[GenerationAudit]) -> Table:
    """For people: a column a generation."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("generation")
    for audit in audits:
        table.add_column(f"{audit.number} ({audit.state})", justify="right")
    table.add_row("users", *(f"{audit.users:,}" for audit in audits))
    table.add_row("  through Feast", *(f"{audit.through_feast:,}" for audit in audits))
    table.add_row("events folded", *(f"{audit.events:,}" for audit in audits))
    for verdict in Verdict:
        table.add_row(name_of(verdict), *(f"{audit.counts[verdict]:,}" for audit in audits))
    table.add_row("largest difference", *(f"{audit.largest_difference:g}" for audit in audits))
    return table


def name_of(verdict: Verdict) -> str:
    """A verdict's name for people."""
    return verdict.name.lower().replace("_", " ")
