"""A user who was forgotten stays so, whatever Redis loses, and goes from the workspace's files."""

import json
import os
import shutil
import stat
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis.exceptions import OutOfMemoryError

from tests.pipelines.audit.conftest import SNAPSHOT_DAY, audited
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.snapshots.snapshots import list_snapshots
from uic.feature_repo.store.errors import StoreFullError
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.cli import main
from uic.jobs.stream.letters.archive import file_range, file_ranges
from uic.jobs.stream.letters.erasing import erase_payloads
from uic.jobs.stream.topics.event_files import LoggedPayload, line_of, read_lines
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import ManifestError
from uic.models.features.definition import Owner
from uic.models.features.tables import table_path, write_table
from uic.pipelines.audit.compare import Verdict
from uic.pipelines.log.event_log import EventLog

USER = 3
NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A workspace with a log, a snapshot in a real Redis that is live, and 30 users."""
    server = EmbeddedRedis(tmp_path / "redis")
    with audited(tmp_path / "shop", server) as made:
        monkeypatch.setenv("UIC_STORE__ADDRESS", server.start().address)
        made.store.generations.switch(made.build(), 0)
        yield made
    server.stop()


def users_of(path):
    return set(pq.read_table(path)["user_id"].to_pylist())


def rows_in_log(root):
    files = EventLog(root / "log").behavior_files()
    return sum(pq.read_table(file.path)["user_id"].to_pylist().count(USER) for file in files)


def test_a_user_who_came_back_is_extra_though_the_store_knows_no_tombstone(shop):
    workspace = Workspace(shop.workspace)
    workspace.forget(USER)
    shop.store.client.flushall()
    snapshot = list_snapshots(shop.workspace / "memories")[0]
    load_values(snapshot, shop.store.memories, shop.store.generations)  # as a restored copy has it
    (found,) = workspace.audit(sample_rate=1.0).generations
    assert found.counts[Verdict.EXTRA] == 1


def test_the_files_of_the_workspace_are_written_anew_without_the_user(shop):
    root = shop.workspace
    workspace = Workspace(root)
    before = sum(file.rows for file in EventLog(root / "log").behavior_files())
    gone = rows_in_log(root)
    assert gone > 0
    features = root / "serving" / "features" / "dt=2026-03-01" / "a.parquet"
    features.parent.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1, USER, USER]}), features)
    table = table_path(root, Owner.USER)
    write_table(table, pa.table({"user_id": [1, USER], "age": [30, 40]}))
    workspace.forget(USER)
    erased = {one.place: one.rows for one in workspace.erase_forgotten()}
    assert erased == {"log": gone, "snapshots": 1, "served features": 2, "features of users": 1}
    log = EventLog(root / "log")
    assert rows_in_log(root) == 0
    assert sum(file.rows for file in log.behavior_files()) == before - gone
    assert log.manifests()[0]["forgotten"] == gone
    (snapshot,) = list_snapshots(root / "memories")
    assert USER not in snapshot.ids()
    assert snapshot.rows == 29 == len(snapshot.ids())
    assert users_of(features) == users_of(table) == {1}
    shutil.rmtree(root / "serving")
    # Nothing is left to do, and nothing else has changed: a build goes on from the snapshot.
    assert workspace.erase_forgotten() == []
    later = workspace.build_memories(
        bundle="mimn/1", start=snapshot.path, until=SNAPSHOT_DAY.replace(day=SNAPSHOT_DAY.day + 1)
    )
    assert USER not in later.ids()
    assert workspace.audit(sample_rate=1.0).generations[0].faults() == []


def test_rows_that_are_imported_again_go_the_next_time(shop):
    workspace = Workspace(shop.workspace)
    workspace.forget(USER)
    workspace.erase_forgotten()
    folder = shop.workspace / "serving" / "features" / "dt=2026-03-02"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [USER, 2]}), folder / "b.parquet")
    assert [(one.place, one.rows) for one in workspace.erase_forgotten()] == [
        ("served features", 1)
    ]


def test_payloads_go_and_their_places_stay(tmp_path):
    def payload(user):
        return json.dumps({"user_id": user, "item_id": 1}).encode()

    rows = [LoggedPayload(payload(user), 0, at, NOON) for at, user in enumerate([1, 3, 2, 3])]
    rows.append(LoggedPayload(b"{", 0, 4, NOON))
    path = tmp_path / "part-a"
    letter = line_of(rows[1]).rstrip(b"}\n") + b',"reason":"partition_moved","log_epoch":1}\n'
    path.write_bytes(b"".join(map(line_of, rows)))
    assert erase_payloads(path, {3}) == 2
    assert erase_payloads(path, {3}) == 0
    read = list(read_lines(path))
    assert [row.offset for row in read] == [0, 1, 2, 3, 4]
    assert [row.payload for row in read] == [payload(1), None, payload(2), None, b"{"]
    assert file_range(path) == (0, 4)
    path.write_bytes(letter)
    assert erase_payloads(path, {3}) == 1
    document = json.loads(path.read_text())
    assert (document["payload"], document["reason"]) == (None, "partition_moved")
    assert b64encode(payload(3)) not in path.read_bytes()


def test_a_full_redis_takes_a_forgotten_user_out(shop):
    client = shop.store.client
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
    try:
        with pytest.raises(OutOfMemoryError):
            client.set("x", "y" * 1000)
        # The memory goes first and makes room, or at least goes.
        with suppress(StoreFullError):  # there may be no room for the tombstone even so
            Workspace(shop.workspace).forget(USER)
    finally:
        client.config_set("maxmemory", 0)
    assert not shop.store.memories.read(1, [USER])[1][0]
    assert USER in Tombstones(shop.workspace).ids()


@pytest.mark.parametrize("user", ["-5", str(2**63)])
def test_what_is_no_id_is_refused_before_anything_is_written(shop, monkeypatch, capsys, user):
    words = ["uic", "user", "forget", user, "--yes", "--workspace", str(shop.workspace)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert len(Tombstones(shop.workspace).ids()) == 0


def test_a_damaged_list_of_forgotten_users_stops_a_load(shop):
    (shop.workspace / "forgotten.json").write_text('{"users": ["x"]}')
    with pytest.raises(ManifestError, match="would come back"):
        Workspace(shop.workspace).load()


def test_letters_stay_while_events_of_their_time_are_not_in_the_log(tmp_path):
    """Without them a compaction would take what the stream refused as moved for good events."""
    workspace = Workspace(tmp_path)
    log = EventLog(tmp_path / "log")
    log.append_epoch(kind="topic", name="t", partitions=1, first_offsets={0: 0})
    old, day = 40 * 86_400, 86_400
    now = time.time()
    archived = tmp_path / "stream" / "archive" / "epoch=00001" / "dt=2026-03-01" / "part=0" / "a"
    letters = tmp_path / "stream" / "dead-letters" / "epoch=00001"
    for path, age in ((archived, old), (letters / "early", old + 2 * day), (letters / "late", old)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(line_of(LoggedPayload(b"{", 0, 0, NOON)))
        os.utime(path, (now - age, now - age))
    (pruned,) = workspace.stream.prune()
    assert (pruned.place, pruned.files) == ("dead letters", 1)
    assert [path.name for path in letters.iterdir()] == ["late"]


def test_an_archived_file_is_opened_once(tmp_path, monkeypatch):
    folder = tmp_path / "epoch=00001" / "dt=2026-03-01" / "part=0"
    folder.mkdir(parents=True)
    path = folder / "part-a"
    path.write_bytes(line_of(LoggedPayload(b"", 0, 7, NOON)))
    assert file_ranges(tmp_path, 1, [path]) == [(7, 7, path)]
    monkeypatch.setattr(
        "uic.jobs.stream.letters.archive.file_range", lambda path: pytest.fail(f"opened {path}")
    )
    assert file_ranges(tmp_path, 1, [path]) == [(7, 7, path)]


@pytest.mark.parametrize(("access", "mode"), [("owner", 0o600), ("group", 0o640)])
def test_what_uic_writes_is_read_by_nobody_else(tmp_path, monkeypatch, access, mode):
    monkeypatch.setenv("UIC_FILE_ACCESS", access)
    words = ["simulate", "--users", "20", "--days", "2", "--workspace", str(tmp_path / "shop")]
    monkeypatch.setattr("sys.argv", ["uic", *words])
    before = os.umask(0o022)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        os.umask(before)
    assert ended.value.code in (None, 0)
    paths = [path for path in (tmp_path / "shop").rglob("*") if path.is_file()]
    assert paths
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {mode}
    np.testing.assert_array_equal(Tombstones(tmp_path / "shop").ids(), [])
