"""The audit of a workspace: every generation of its store, and the answers of its service."""

import json
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.checks.audited_topic import TopicAudit, audit_topic
from uic.jobs.config.context import Context
from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.stream.letters.tail import ArchiveTail
from uic.jobs.stream.run.supervisor import is_streaming
from uic.models.features.feature_file import load_features
from uic.models.published import write_json_atomically
from uic.pipelines.audit.memories import AuditError, AuditRequest, audit_generation
from uic.pipelines.audit.report import (
    AuditMismatchError,
    GenerationAudit,
    ServedAudit,
    require_no_mismatch,
)
from uic.pipelines.audit.served import audit_served
from uic.pipelines.audit.settings import AuditSettings

if TYPE_CHECKING:
    from feast import FeatureStore

_FEAST_ROWS = 500
REPORT_NAME = "audit.json"
AUDITED_STATES = ("ready", "live", "retired")


@dataclass(frozen=True)
class WorkspaceAudit:
    """What an audit found.

    Attributes:
        generations: one entry a generation.
        served: what the service has written down, beside the log; None for nothing.
        topic: what the broker says of it; None if no topic was streamed.
        report: file that holds the same.
    """

    generations: list[GenerationAudit]
    served: ServedAudit | None
    topic: TopicAudit | None
    report: Path

    def require_no_mismatch(self) -> None:
        """Raise if a memory is not what the log says, or an answer not what the model says.

        Raises:
            AuditMismatchError: names the generation, the counts and a user of each kind.
        """
        faults = [self.topic.fault] if self.topic is not None and self.topic.fault else []
        require_no_mismatch(self.generations, self.served, faults)


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


def audit_workspace(
    context: Context,
    settings: AuditSettings,
    only: int | None,
    progress: Progress,
    *,
    ask_broker: bool = True,
) -> WorkspaceAudit:
    """Audit generations and what was served, and write `reports/audit.json`.

    Args:
        context: workspace and configuration.
        settings: the section `audit`.
        only: number of a generation; None for all that are ready, live or retired.
        progress: told the rows of the log that were read.
        ask_broker: whether a broker that does not answer is a fault.

    Raises:
        AuditError: there is nothing to audit, or what it needs is gone.
        StoreError: the store does not answer, or is empty.
    """
    audits = run_audit(context, settings, only, progress)
    progress("answers of the service", 0, None)
    served = run_served_audit(context, settings)
    topic = audit_topic(context, ask=ask_broker)
    audit = WorkspaceAudit(audits, served, topic, context.reports / REPORT_NAME)
    document = {
        "fault": _fault(audit),
        "sample_rate": settings.sample_rate,
        "generations": [audit.to_json() for audit in audits],
        "served": None if served is None else served.to_json(),
        "topic": None if topic is None else vars(topic),
    }
    write_json_atomically(audit.report, document)
    return audit


def _fault(audit: WorkspaceAudit) -> str | None:
    """What the audit ends with; None where everything is what the log says."""
    try:
        audit.require_no_mismatch()
    except AuditMismatchError as error:
        return str(error)
    return None


def passed_since(context: Context, path: Path, sample_rate: float, generation: int) -> bool:
    """Whether `reports/audit.json` is of an audit after `path` was written that found no fault.

    Args:
        context: workspace and configuration.
        path: a file that is there.
        sample_rate: share of users that it must have looked at.
        generation: that it must have looked at.
    """
    report = context.reports / REPORT_NAME
    if not report.is_file() or report.stat().st_mtime_ns < path.stat().st_mtime_ns:
        return False
    document = json.loads(report.read_text(encoding="utf-8"))
    judged = [audit["generation"] for audit in document["generations"]]
    return (
        document.get("fault", "not said") is None
        and document["sample_rate"] >= sample_rate
        and generation in judged
    )


def run_audit(
    context: Context,
    settings: AuditSettings,
    only: int | None,
    progress: Progress = no_progress,
) -> list[GenerationAudit]:
    """Audit one generation, or all that are ready, live or retired.

    Args:
        context: workspace and configuration.
        settings: the section `audit`, as changed on the command line.
        only: number of a generation; None for all.
        progress: told the rows of the log that were read, a step for each generation.

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
        forgotten=Tombstones(context.workspace).ids(),
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
        streams = is_streaming(context.workspace)
        audits = []
        for generation in generations:
            number = generation.number
            with tempfile.TemporaryDirectory(dir=context.workspace, prefix=".audit-") as scratch:
                audits.append(
                    audit_generation(
                        replace(
                            request,
                            scratch=Path(scratch) / "spool",
                            tail=ArchiveTail(context, Path(scratch) / "tail", streams=streams),
                        ),
                        store,
                        generation,
                        feast if number == live else None,
                        partial(progress, f"generation {number}: log rows"),
                    )
                )
    return audits


def run_served_audit(context: Context, settings: AuditSettings) -> ServedAudit | None:
    """Hold what the service wrote down (`serve.log_features`) against the log; None for nothing.

    Raises:
        AuditError: snapshots that it needs are gone.
        BadInputError: `features.yaml` or one of its tables is not what it has to be.
    """
    site = load_features(context.features) if context.features.is_file() else None
    request = AuditRequest(context.log, context.memories, context.bundles, Path(), settings)
    with tempfile.TemporaryDirectory(dir=context.workspace, prefix=".audit-") as scratch:
        features = context.workspace / "serving" / "features"
        tail = ArchiveTail(context, Path(scratch) / "tail", streams=False)
        request = replace(request, scratch=Path(scratch) / "spool", tail=tail)
        return audit_served(request, features, site=site)
