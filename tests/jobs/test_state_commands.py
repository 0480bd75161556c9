"""`uic state` and `uic features asof` over a small simulated log."""

import json
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.config.config import Config
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError, UicError
from uic.models.state.definition import DEFAULT, StateDefinition
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.settings import MemoriesSettings

NAMES = [one.name for one in StateDefinition.load(DEFAULT).described]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state") / "var"
    Workspace(folder).simulate(users=60, days=3, items=100)
    return folder


@pytest.fixture
def workspace(simulated):
    """The log, without a file of parts."""
    (simulated / "state.yaml").unlink(missing_ok=True)
    return simulated


def uic(workspace, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--workspace", str(workspace)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_init_writes_the_package_s_parts_once(workspace) -> None:
    assert "change it, then run uic state check" in uic(workspace, "state", "init")
    assert (workspace / "state.yaml").read_text() == DEFAULT.read_text()
    with pytest.raises(BadInputError, match="is there already; change it, or remove it first"):
        uic(workspace, "state", "init")


def test_show_prints_bytes_and_features_of_the_file_in_force(workspace) -> None:
    document = json.loads(uic(workspace, "state", "show", "--json"))
    assert document["bytes"] == StateDefinition.load(DEFAULT).bytes
    assert [one["name"] for one in document["features"]] == NAMES
    (workspace / "state.yaml").write_text("version: 1\nparts: {mine: {kind: recent}}")
    shown = uic(workspace, "state", "show")
    assert "mine.gap" in shown
    assert "items" not in shown


def test_check_tells_of_every_feature_and_remarks_a_full_table(workspace) -> None:
    found = json.loads(uic(workspace, "state", "check", "--json"))
    assert [one["name"] for one in found["features"]] == NAMES
    assert 0 < found["users"] <= 60
    assert found["remarks"] == []
    parts = "version: 1\nparts: {few: {kind: counts, size: 2}, none: {kind: rates, by: shop}}"
    (workspace / "state.yaml").write_text(parts.replace(", none: {kind: rates, by: shop}", ""))
    [remark] = json.loads(uic(workspace, "state", "check", "--json"))["remarks"]
    assert remark.startswith("few: keys went out for ")
    (workspace / "state.yaml").write_text(parts)
    for command in ("check", "show"):
        with pytest.raises(UicError, match=r"part none reads shop of events, features.yaml decl"):
            uic(workspace, "state", command)


def test_the_same_parts_are_published_once(workspace) -> None:
    assert uic(workspace, "state", "publish") == "bundle state/0001\n"
    assert uic(workspace, "state", "publish") == "bundle state/0001\n"
    (workspace / "state.yaml").write_text("version: 1\nparts: {mine: {kind: recent}}")
    assert uic(workspace, "state", "publish") == "bundle state/0002\n"
    with pytest.raises(UicError, match="published already; choose another --version"):
        uic(workspace, "state", "publish", "--version", "0001")


def test_a_bundle_whose_module_is_gone_does_not_hold_up_another(
    workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from uic.models.state.recent import Recent\nclass Mine(Recent): ...\n"
    (tmp_path / "gone_parts.py").write_text(text)
    with monkeypatch.context() as there:
        there.syspath_prepend(tmp_path)
        (workspace / "state.yaml").write_text('version: 1\nparts: {m: {kind: "gone_parts:Mine"}}')
        uic(workspace, "state", "publish", "--version", "own")
    del sys.modules["gone_parts"]  # after the patch, which would put it back
    (workspace / "state.yaml").write_text("version: 1\nparts: {later: {kind: recent, size: 3}}")
    assert uic(workspace, "state", "publish").startswith("bundle state/0")


def test_a_build_from_nothing_begins_where_samples_and_asof_begin(workspace) -> None:
    made = Workspace(workspace)
    uic(workspace, "state", "publish")
    last = max(file.dt for file in EventLog(made.context.log).behavior_files())
    short = Workspace(workspace, Config(memories=MemoriesSettings(warm_up_days=1)))
    built = short.build_memories("state", last)
    rows = sum(file.rows for file in EventLog(made.context.log).behavior_files())
    assert built.manifest["events"]["folded"] == rows
    # Unless it is told how many days.
    assert short.build_memories("state", last, days=1).manifest["events"]["folded"] < rows


def test_asof_writes_the_rows_with_features(workspace, tmp_path) -> None:
    rows = pa.table({"user_id": [1, 2], "time": [datetime(2030, 1, 1, tzinfo=UTC)] * 2})
    pq.write_table(rows, tmp_path / "rows.parquet")
    said = uic(workspace, "features", "asof", str(tmp_path / "rows.parquet"), str(tmp_path / "out"))
    assert f"2 rows, {len(NAMES)} features; 2 rows of users with events before" in said
    assert pq.read_table(tmp_path / "out").column_names == ["user_id", "time", *NAMES]
    with pytest.raises(BadInputError, match="not readable as Parquet"):
        uic(workspace, "features", "asof", str(tmp_path / "none"), str(tmp_path / "out"))


def test_a_changed_file_takes_over_the_parts_that_are_as_they_were(workspace, tmp_path) -> None:
    """In a workspace of its own: the output says which, and that a fold from nothing was asked."""
    own = tmp_path / "var"
    Workspace(own).simulate(users=20, days=4, items=100)
    last = max(file.dt for file in EventLog(own / "log").behavior_files())
    file = "version: 1\nparts: {a: {kind: recent}, b: {kind: counts, by: item, size: %d}}"
    for size in (8, 16):
        (own / "state.yaml").write_text(file % size)
        uic(own, "state", "publish")
        said = uic(own, "memories", "build", "--bundle", "state", "--until", str(last))
        assert ("parts " in said) == (size == 16)
    taken = "a taken over from generation=001/dt={} (state/0001); folded: b"
    assert taken.format(last) in " ".join(said.split())
    words = ("memories", "build", "--bundle", "state", "--until", str(last), "--from-nothing")
    assert "taken over" not in uic(own, *words)
    before = Workspace(own).snapshots()[0].path
    with pytest.raises(BadInputError, match="--from-nothing and --from: a build does either"):
        uic(own, *words, "--from", str(before))
