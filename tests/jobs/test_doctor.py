"""`uic doctor` on real things: an empty folder, a real Redis, and what would lose memories."""

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.feature_repo.snapshots.snapshots import SNAPSHOT_KIND, SNAPSHOT_SCHEMA_VERSION
from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.checks.doctor import Level, examine
from uic.jobs.cli import app
from uic.jobs.config.context import open_context
from uic.jobs.stream.topics.kafka_server import free_port
from uic.jobs.workspace.workspace import Workspace
from uic.models.kernels.compiled import folded_by
from uic.models.published import publish_manifest


def findings(workspace: Path) -> dict[str, list[tuple[Level, str]]]:
    found: dict[str, list[tuple[Level, str]]] = {}
    for finding in examine(open_context(workspace, None)):
        found.setdefault(finding.subject, []).append((finding.level, finding.text))
    return found


@pytest.fixture(autouse=True)
def no_broker(monkeypatch):
    monkeypatch.setenv("UIC_STREAM__SOURCE", "files")


def test_an_empty_workspace_is_fine_and_says_what_comes_first(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--workspace", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert "uic import" in result.output
    assert "uic store start" in result.output
    assert not (tmp_path / "new").exists()


def test_a_running_store_is_ok_and_one_without_its_log_is_wrong(tmp_path, monkeypatch):
    server = EmbeddedRedis(tmp_path / "store")
    running = server.start()
    try:
        assert findings(tmp_path)["store"][0][0] is Level.OK
        client = connect(Address.at(running.address))
        client.config_set("appendonly", "no")
        levels = [level for level, _ in findings(tmp_path)["store"]]
        assert levels == [Level.OK, Level.WRONG]
        client.config_set("maxmemory-policy", "allkeys-lru")
        [(level, text)] = findings(tmp_path)["store"]
        assert level is Level.WRONG
        assert "noeviction" in text
        result = CliRunner().invoke(app, ["doctor", "--workspace", str(tmp_path)])
        assert result.exit_code == 2
        client.close()
    finally:
        server.stop()


def test_a_store_that_is_set_and_away_is_wrong_not_a_remark(tmp_path, monkeypatch):
    monkeypatch.setenv("UIC_STORE__ADDRESS", "127.0.0.1:1")
    [(level, text)] = findings(tmp_path)["store"]
    assert level is Level.WRONG
    assert "127.0.0.1:1" in text


def test_a_log_of_another_time_zone_is_wrong(tmp_path, monkeypatch):
    simulate = ["simulate", "--users", "10", "--items", "100", "--days", "2"]
    result = CliRunner().invoke(app, [*simulate, "--workspace", str(tmp_path)])
    assert result.exit_code == 0, result.output
    monkeypatch.setenv("UIC_TIME_ZONE", "Asia/Shanghai")
    [(level, text)] = findings(tmp_path)["time zone"]
    assert level is Level.WRONG
    assert "the log's days are of UTC" in text


def test_a_workspace_that_cannot_be_written_is_wrong():
    # Not even root may make a folder here.
    assert findings(Path("/proc/self/uic"))["workspace"][0][0] is Level.WRONG


def test_memories_of_other_kernels_are_a_remark(tmp_path):
    [(level, text)] = findings(tmp_path)["kernels"]
    assert level is Level.OK
    assert folded_by()["kernels"] in text
    for generation, fields in ((1, {}), (2, {"folded_by": {"kernels": "0123456789abcdef"}})):
        manifest = {"kind": SNAPSHOT_KIND, "schema_version": SNAPSHOT_SCHEMA_VERSION, "files": []}
        folder = tmp_path / "memories" / f"generation={generation:03d}" / "dt=2025-01-01"
        folder.mkdir(parents=True)
        publish_manifest(folder, manifest | fields)
    [_, (level, text)] = findings(tmp_path)["kernels"]
    assert level is Level.REMARK
    assert "generation=002/dt=2025-01-01 were folded by kernels 0123456789abcdef" in text


def test_jars_are_looked_for_where_events_come_from_kafka(tmp_path, monkeypatch):
    assert "jars" not in findings(tmp_path)
    monkeypatch.setenv("UIC_STREAM__SOURCE", "kafka")
    monkeypatch.setenv("UIC_STREAM__BROKERS", "127.0.0.1:1")
    monkeypatch.setenv("UIC_STREAM__JARS_FOLDER", str(tmp_path))
    [(level, text)] = findings(tmp_path)["jars"]
    assert level is Level.REMARK
    assert "uic events jars" in text
    (tmp_path / "flink").mkdir()
    (tmp_path / "flink" / "connector.jar").touch()
    assert findings(tmp_path)["jars"][0][0] is Level.OK


def test_what_the_store_listens_on_is_named(tmp_path):
    server = EmbeddedRedis(tmp_path / "store")
    assert "listens" not in findings(tmp_path)
    running = server.start()
    try:
        text = f"the store on {running.address}"
        assert findings(tmp_path)["listens"] == [(Level.OK, text)]
    finally:
        server.stop()


def test_a_store_that_the_network_reaches_is_wrong(tmp_path):
    # The last word wins: as if a version of Redis left `bind` out.
    port = free_port()
    server = EmbeddedRedis(tmp_path / "store", ("--bind", "0.0.0.0", "--port", str(port)))
    server.start()
    try:
        [_, (level, text)] = findings(tmp_path)["listens"]
        assert level is Level.WRONG
        assert text.startswith(f"the store: 0.0.0.0:{port} (redis-server, process ")
    finally:
        server.stop()


def test_every_file_system_of_the_workspace_is_looked_at(tmp_path, monkeypatch):
    """The stream's folder may be a volume of its own, and full while the rest is empty."""
    (tmp_path / "stream").mkdir()
    (tmp_path / "log").mkdir()
    stat = Path.stat
    device = {tmp_path / "stream": 77}

    def of_another(path, **options):
        found = stat(path, **options)
        if path in device:
            return os.stat_result((*found[:2], device[path], *found[3:10]))
        return found

    monkeypatch.setattr(Path, "stat", of_another)
    context = open_context(tmp_path, None)
    places = [f.text.rpartition(" ")[2] for f in examine(context) if f.subject == "disk"]
    assert places == [str(tmp_path), str(tmp_path / "stream")]


def test_parts_of_a_current_bundle_are_loaded_and_a_class_that_is_gone_is_wrong(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    own = Workspace(tmp_path / "var")
    own.path.mkdir()
    text = "from uic.models.state.recent import Recent\nclass Basket(Recent): ...\n"
    (tmp_path / "shop_parts.py").write_text(text)
    (own.path / "state.yaml").write_text(
        'version: 1\nparts: {a: {kind: recent}, basket: {kind: "shop_parts:Basket"}}'
    )
    with monkeypatch.context() as there:
        there.syspath_prepend(tmp_path)
        own.state.publish()
        assert findings(own.path)["parts"] == [(Level.OK, "state/0001: a, basket")]
    del sys.modules["shop_parts"]  # after the patch, which would put it back
    [(level, text)] = findings(own.path)["parts"]
    assert level is Level.WRONG
    assert text.startswith("state/0001: part basket: kind shop_parts:Basket: No module named")
    assert findings(own.path)["store"]  # what comes after it is looked at, too
