"""Exact parts that a new bundle takes over are those of a build from nothing, byte for byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.pipelines.memories.conftest import random_behaviors, untrained_bundle, write_log
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_state
from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import header_view, parts_view
from uic.models.state.definition import StateDefinition
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.memories.exclude import ExcludeRule
from uic.pipelines.memories.fold_bucket import TakeOverError
from uic.pipelines.settings import MemoriesSettings

pytestmark = pytest.mark.slow
Make = Callable[..., MemoriesRequest]
DAYS = [date(2024, 3, day) for day in range(1, 7)]
LATECOMERS = [1000, 1001]
ONCE = 2000
PARTS: dict[str, Any] = {
    "items": {"kind": "counts", "by": "item", "size": 16},
    "last": {"kind": "recent", "size": 4},
    "shelves": {"kind": "rates", "by": "category", "successes": ["buy"], "exposures": ["click"]},
    "week": {"kind": "aggregate", "functions": ["count"], "windows": ["1d", "2d"]},
}
CHANGED = {**PARTS, "items": {"kind": "counts", "by": "item", "size": 24}}
# The memories of the tests begin two days before the last one.
SHORT = MemoriesSettings(buckets=3, warm_up_days=2)


def state_of(parts: dict[str, Any]) -> StateDefinition:
    return StateDefinition.of_document({"version": 1, "parts": parts}, "a test")


def events_of(snapshot: Snapshot) -> int:
    return int(snapshot.manifest["events"]["folded"])


def records_of(snapshot: Snapshot) -> dict[int, bytes]:
    """Records without the number of their generation."""
    found = {}
    for users, records in snapshot.batches():
        header_view(records)["generation"] = 0
        found |= {int(u): r.tobytes() for u, r in zip(users, records, strict=True)}
    return found


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One is live; one has other weights, one another `state.yaml`; two have no weights."""
    root = tmp_path_factory.mktemp("bundles")
    save_state(root / "state" / "1", state_of(PARTS), ())
    save_state(root / "state" / "2", state_of(CHANGED), ())
    return {
        "live": untrained_bundle(root / "mimn" / "1", seed=1, state=state_of(PARTS)),
        "new": untrained_bundle(root / "mimn" / "2", seed=2, state=state_of(PARTS)),
        "changed": untrained_bundle(root / "mimn" / "3", seed=3, state=state_of(CHANGED)),
        "parts": root / "state" / "1",
        "changed parts": root / "state" / "2",
    }


@pytest.fixture(scope="module")
def history(root: Path) -> EventLog:
    """Six days of thirty users, of two who come on the fifth, and of one who came once."""
    behaviors = random_behaviors(days=6, events=900)
    users = behaviors.column("user_id").to_numpy().copy()
    late = np.flatnonzero(
        behaviors.column("event_time").to_numpy() >= np.datetime64("2024-03-05", "ms")
    )
    users[late[:40]] = np.resize(LATECOMERS, 40)
    users[0] = ONCE
    return write_log(root / "log", behaviors.set_column(0, "user_id", pa.array(users)))


@pytest.fixture(scope="module")
def live(
    root: Path, history: EventLog, request_for: Make, bundles: dict[str, Path]
) -> Callable[[str, date, Path], Snapshot]:
    """The snapshot of a bundle's generation, alone in a folder of memories."""

    def make(bundle: str, until: date, memories: Path) -> Snapshot:
        kept = root / "lives" / f"{bundle} {until}"
        if not kept.exists():
            request = request_for(
                until, bundle=bundles[bundle], memories=kept, memories_settings=SHORT
            )
            build_memories(request)
        shutil.copytree(kept, memories, symlinks=True)
        [manifest] = memories.glob("generation=001/*/manifest.json")
        return Snapshot.open(manifest.parent)

    return make


def built(request: MemoriesRequest, tmp_path: Path) -> tuple[Snapshot, Snapshot]:
    """The build over the snapshots that are there, and the one from nothing."""
    nothing = replace(request, memories=tmp_path / "nothing", take_over=False)
    return build_memories(request), build_memories(nothing)


@pytest.mark.parametrize(
    ("old", "new", "since", "until", "taken"),
    [
        ("live", "new", 3, 4, list(PARTS)),
        ("live", "new", 3, 6, list(PARTS)),
        ("live", "new", 6, 6, list(PARTS)),
        ("live", "new", 1, 6, list(PARTS)),
        ("live", "changed", 4, 6, ["last", "shelves", "week"]),
        ("parts", "live", 2, 5, list(PARTS)),
        ("live", "changed parts", 4, 6, ["last", "shelves", "week"]),
        ("parts", "changed parts", 4, 6, ["last", "shelves", "week"]),
        ("changed parts", "changed", 4, 6, list(PARTS)),
    ],
)
def test_records_are_those_of_a_build_from_nothing(
    live,
    request_for: Make,
    bundles: dict[str, Path],
    tmp_path: Path,
    *,
    old,
    new,
    since,
    until,
    taken,
) -> None:
    base = live(old, DAYS[since - 1], tmp_path / "memories")
    request = request_for(
        DAYS[until - 1],
        bundle=bundles[new],
        memories=tmp_path / "memories",
        memories_settings=SHORT,
    )
    over, nothing = built(request, tmp_path)
    assert over.manifest["taken"]["parts"] == taken
    assert over.manifest["taken"]["from"] == base.name
    assert nothing.manifest["taken"] is None
    assert over.generation == 2
    assert records_of(over) == records_of(nothing)
    assert ONCE in records_of(over)
    assert (LATECOMERS[0] in records_of(over)) == (until > 4)
    for same in ("positions", "log_times", "first_day", "learns_from_ms", "out_of_order", "rows"):
        assert over.manifest[same] == nothing.manifest[same]


def test_only_what_is_learned_is_folded_again(
    live, request_for: Make, bundles: dict[str, Path], history: EventLog, tmp_path: Path
) -> None:
    base = live("live", DAYS[4], tmp_path / "memories")
    request = request_for(
        DAYS[5], bundle=bundles["new"], memories=tmp_path / "memories", memories_settings=SHORT
    )
    over, nothing = built(request, tmp_path)
    window = sum(file.rows for file in history.behavior_files(DAYS[4], DAYS[5]))
    assert events_of(over) == window
    assert events_of(nothing) == 900
    assert base.manifest["learns_from_ms"] == datetime(2024, 3, 4, tzinfo=UTC).timestamp() * 1000
    assert over.manifest["learns_from_ms"] == datetime(2024, 3, 5, tzinfo=UTC).timestamp() * 1000


def test_memories_are_warmed_up_and_parts_count_all(
    request_for: Make, bundles: dict[str, Path], history: EventLog, tmp_path: Path
) -> None:
    """A memory is that of a build over its days alone; the parts are those of a build of parts."""

    def build(bundle: str, **changes: Any) -> tuple[dict[int, bytes], MemoryFolder]:
        path = tmp_path / f"{bundle} {sorted(changes)}"
        request = request_for(DAYS[5], bundle=bundles[bundle], memories=path, **changes)
        return records_of(build_memories(request)), MemoryFolder(load_bundle(bundles[bundle]), 1)

    both, folder = build("live", memories_settings=SHORT)
    days, _ = build("live", days=2)
    parts, _ = build("parts")
    assert both.keys() == parts.keys()
    size = folder.parts_bytes
    assert {user: record[-size:] for user, record in both.items()} == {
        user: record[-size:] for user, record in parts.items()
    }
    assert len(days) < len(both)
    assert {user: both[user][:-size] for user in days} == {u: r[:-size] for u, r in days.items()}
    only_parts = np.frombuffer(both[ONCE], np.uint8)[None].copy()
    assert header_view(only_parts)["events"] == 0
    assert parts_view(only_parts, size).any()


def test_forgotten_users_come_back_with_neither(
    live, request_for: Make, bundles: dict[str, Path], tmp_path: Path
) -> None:
    live("live", DAYS[3], tmp_path / "memories")
    request = request_for(
        DAYS[5],
        bundle=bundles["new"],
        memories=tmp_path / "memories",
        memories_settings=SHORT,
        forgotten=(ONCE, 0, LATECOMERS[1], 77),
    )
    over, nothing = built(request, tmp_path)
    assert records_of(over) == records_of(nothing)
    assert not {ONCE, 0, LATECOMERS[1]} & records_of(over).keys()
    assert LATECOMERS[0] in records_of(over)


RULE = ExcludeRule.model_validate({"users": [3]})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"until": DAYS[2]}, "holds the log until 2024-03-04, beyond --until 2024-03-03"),
        ({"rules": (RULE,)}, "leaves out other events"),
        ({"days": 3}, "begins with 2024-03-01, this build with 2024-03-04"),
    ],
)
def test_what_would_differ_is_folded_from_nothing_and_says_why(
    live, request_for: Make, bundles: dict[str, Path], tmp_path: Path, *, changes, why
) -> None:
    live("live", DAYS[3], tmp_path / "memories")
    wanted = {"until": DAYS[5], "bundle": bundles["new"], "memories": tmp_path / "memories"}
    over, nothing = built(request_for(**(wanted | changes)), tmp_path)
    assert why in over.manifest["taken"]["not"]
    assert over.manifest["taken"]["not"].startswith("generation=001/dt=2024-03-04 ")
    assert records_of(over) == records_of(nothing)


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ({"columns": None}, "was built by an older version"),
        ({"columns": [{"name": "shop"}]}, "was folded with other columns of events"),
        ({"folded_by": {"kernels": "0" * 16}}, "was folded by other kernels"),
        ({"out_of_order": 2}, "has refused 2 events that were out of order"),
        ({"epochs": {"1": "another"}}, "is of another log"),
        ({"parts": {"version": 1, "parts": {"a": {"kind": "gone:P"}}}}, "kind gone:P"),
        (
            {"parts": {"version": 1, "parts": {"last": {"kind": "recent", "size": 5}}}},
            "has no part with the same settings",
        ),
    ],
)
def test_a_snapshot_that_does_not_fit_is_left_alone(
    live, request_for: Make, bundles: dict[str, Path], tmp_path: Path, *, manifest, why
) -> None:
    base = live("parts", DAYS[3], tmp_path / "memories")
    document = base.manifest | manifest
    document = {name: value for name, value in document.items() if value is not None}
    (base.path / "manifest.json").write_text(json.dumps(document))
    request = request_for(DAYS[4], bundle=bundles["changed parts"], memories=tmp_path / "memories")
    snapshot = build_memories(request)
    assert why in snapshot.manifest["taken"]["not"]
    assert events_of(snapshot) == snapshot.manifest["events"]["read"]


def test_a_count_of_a_memory_that_begins_later_is_not_taken_for_the_parts(
    live, request_for: Make, bundles: dict[str, Path], tmp_path: Path
) -> None:
    live("live", DAYS[3], tmp_path / "memories")
    request = request_for(DAYS[5], bundle=bundles["parts"], memories=tmp_path / "memories")
    over, nothing = built(request, tmp_path)
    assert "counts the events of a memory" in over.manifest["taken"]["not"]
    assert records_of(over) == records_of(nothing)


def test_the_same_bundle_folds_anew_and_without_parts_nothing_is_said(
    live, request_for: Make, bundles: dict[str, Path], bundle: Path, tmp_path: Path
) -> None:
    live("live", DAYS[3], tmp_path / "memories")
    for same in (bundles["live"], bundle):
        request = request_for(DAYS[5], bundle=same, memories=tmp_path / "memories")
        assert build_memories(request).manifest["taken"] is None


def test_events_of_an_older_epoch_behind_the_snapshot_are_no_basis(
    request_for: Make, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Two imports of the same days: the second is later in the order of the log, not in time."""
    behaviors = random_behaviors(days=6, events=300)
    write_log(tmp_path / "log", behaviors, "one")
    write_log(tmp_path / "log", behaviors, "two")
    wanted = {"log": tmp_path / "log", "memories": tmp_path / "memories"}
    build_memories(request_for(DAYS[3], bundle=bundles["parts"], **wanted))
    over, nothing = built(request_for(DAYS[5], bundle=bundles["changed parts"], **wanted), tmp_path)
    assert "has folded epoch 2, and the log goes on in epoch 1" in over.manifest["taken"]["not"]
    assert records_of(over) == records_of(nothing)


def test_a_log_that_the_snapshot_does_not_end_with_is_refused(
    live, request_for: Make, bundles: dict[str, Path], tmp_path: Path
) -> None:
    base = live("live", DAYS[3], tmp_path / "memories")
    document = dict(base.manifest)
    document["positions"] = {"1": dict.fromkeys(document["positions"]["1"], 5)}
    (base.path / "manifest.json").write_text(json.dumps(document))
    request = request_for(DAYS[5], bundle=bundles["new"], memories=tmp_path / "memories")
    with pytest.raises(TakeOverError, match=r"does not end where the log does.*--from-nothing"):
        build_memories(request)


def test_the_columns_that_bundles_read_must_be_the_same(
    live, request_for: Make, tmp_path: Path
) -> None:
    live("parts", DAYS[3], tmp_path / "memories")
    price = EventColumn(name="price", kind=Kind.NUMBER, field="price")
    parts = {**PARTS, "spent": {"kind": "aggregate", "of": "price", "windows": ["1d"]}}
    save_state(tmp_path / "state" / "9", state_of(parts), (price,))
    request = request_for(DAYS[5], bundle=tmp_path / "state" / "9", memories=tmp_path / "memories")
    assert "other columns of events" in build_memories(request).manifest["taken"]["not"]


BUILD = """
import sys
from datetime import date
from pathlib import Path
from uic.pipelines.memories import fold_bucket
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.settings import MemoriesSettings, SaleSettings

log, memories, bundle = (Path(word) for word in sys.argv[1:4])
settings = MemoriesSettings(buckets=40, warm_up_days=2)
build_memories(
    MemoriesRequest(log, memories, bundle, date(2024, 3, 6), "UTC", settings, SaleSettings())
)
"""


def test_a_build_that_was_killed_is_built_again(
    live, request_for: Make, bundles: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    memories = tmp_path / "memories"
    live("live", DAYS[3], memories)
    words = [str(root / "log"), str(memories), str(bundles["new"])]
    with subprocess.Popen([sys.executable, "-c", BUILD, *words]) as process:
        until = time.monotonic() + 120
        while not list(memories.glob("generation=002/*/*.draft")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    assert not list(memories.glob("generation=002/*/manifest.json"))
    request = request_for(
        DAYS[5],
        bundle=bundles["new"],
        memories=memories,
        memories_settings=SHORT,
        generation=2,
    )
    over, nothing = built(request, tmp_path)
    assert over.manifest["taken"]["parts"] == list(PARTS)
    assert records_of(over) == records_of(nothing)
