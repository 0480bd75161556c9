"""A store is one workspace's: another one, or a copy, reads it and does not write."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.errors import StoreClaimError
from uic.feature_repo.store.identity import identity_of, known_identity
from uic.feature_repo.store.opened import open_for_writing, open_memories
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.checks.doctor import Level, examine
from uic.jobs.cli import app
from uic.jobs.config.context import Context
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.run.attempt_watch import AttemptWatch
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import ForeignEpochError
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError, ManifestError
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow
USER = 9


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Context]:
    """A workspace whose log has an import, epoch 1, and whose stream of files is epoch 2.

    Its store is reached by an address, as one that other machines reach.
    """
    workspace = tmp_path / "first"
    write_event_file(workspace / "events" / "0.jsonl.gz", [LoggedPayload(b"{}", 0, 0, 5)])
    stream = {"source": "files", "files": workspace / "events"}
    context = trial_context(workspace, stream)
    EventLog(context.log).append_epoch(
        kind="import", name="shop", partitions=1, first_offsets={0: 0}
    )
    server, folder = start_trial(context)
    address = server.running().address
    context = trial_context(workspace, stream, store=StoreSettings(address=address))
    with open_memories(context.config.store, workspace) as store:
        store.client.hset(store.generations.keys.markers(1), "1:0", 46_719)
        store.memories.write(1, [USER], folder.initial_records(1))
    yield context
    server.stop()


def second(first: Context, workspace: Path) -> Context:
    """A workspace of another machine: bundles and settings came along, the log did not."""
    shutil.copytree(first.bundles, workspace / "bundles")
    return replace(first, workspace=workspace)


def markers(context: Context) -> dict[int, dict[int, int]]:
    with open_memories(context.config.store, context.workspace) as store:
        return store.generations.markers(1)


def test_nor_into_a_store_that_was_never_claimed(first, tmp_path, caplog):
    """Stores of older versions know neither a claim nor names of epochs."""
    other = second(first, tmp_path / "second")
    with open_memories(first.config.store, first.workspace) as store:
        store.client.hset(store.generations.keys.markers(1), "2:0", 548)
    with pytest.raises(ForeignEpochError, match=r"has folded epoch 2, .*second/log/epochs.json"):
        Planner(other, RunOptions()).plan(1, 1)
    assert not EventLog(other.log).epochs()
    # It has not claimed it either.
    with open_for_writing(first.config.store, first.workspace) as store:
        assert store.claim.read().id == identity_of(first.workspace).id
    [said] = [record.message for record in caplog.records if "of this one now" in record.message]
    assert f"{tmp_path}/first" in said


def test_an_epoch_of_the_store_must_be_the_same_one_in_the_log(first):
    """The same workspace, and a log that was made anew in it."""
    plan, _ = Planner(first, RunOptions()).plan(1, 1)
    with open_memories(first.config.store, first.workspace) as store:
        store.client.hset(store.generations.keys.markers(1), "2:0", 0)
        assert store.generations.get(1).epochs == {1: "shop", plan.epoch: "files.events"}
    shutil.rmtree(first.log)
    log = EventLog(first.log)
    log.append_epoch(kind="import", name="shop", partitions=1, first_offsets={0: 0})
    log.append_epoch(kind="topic", name="t.Xy", partitions=1, first_offsets={0: 0})
    with pytest.raises(
        ForeignEpochError, match=r"folded epoch 2 \(files.events\), in .* epoch 2 is t.Xy"
    ):
        Planner(first, RunOptions()).plan(1, 2)
    assert len(log.epochs()) == 2


def test_a_log_of_before_the_epoch_gets_it_back(first):
    """A backup of a minute too early: the topic of the markers is the topic that is there."""
    Planner(first, RunOptions()).plan(1, 1)
    with open_memories(first.config.store, first.workspace) as store:
        store.client.hset(store.generations.keys.markers(1), "2:0", 0)
    shutil.rmtree(first.log)
    EventLog(first.log).append_epoch(kind="import", name="shop", partitions=1, first_offsets={0: 0})
    plan, _ = Planner(first, RunOptions()).plan(1, 2)
    assert plan.epoch == 2


def test_forgetting_in_a_copy_does_not_reach_the_store_of_the_original(first, tmp_path):
    """`cp -a` of a workspace whose store is elsewhere; then `uic user forget 9` in the copy."""
    original = Workspace(first.workspace, first.config)
    assert original.forget(1) == []  # claims the store
    copy = tmp_path / "copy"
    # The store is reached by its address, as one that lies elsewhere.
    shutil.copytree(first.workspace, copy, ignore=shutil.ignore_patterns(STORE_FOLDER))
    with pytest.raises(StoreClaimError, match="uic store adopt"):
        Workspace(copy, first.config).forget(USER)
    assert original.generations_of(USER) == [1]
    with pytest.raises(StoreClaimError):
        Workspace(copy, first.config).switch(1)
    assert original.forget(USER) == [1]


def test_a_copy_has_an_id_of_its_own_and_a_moved_folder_keeps_its_id(tmp_path):
    (tmp_path / "one").mkdir()
    one = identity_of(tmp_path / "one")
    assert identity_of(tmp_path / "one") == one
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert known_identity(tmp_path / "copy") is None
    copy = identity_of(tmp_path / "copy")
    assert (copy.id != one.id, copy.copy_of) == (True, one.id)
    (tmp_path / "one").rename(tmp_path / "moved")
    assert identity_of(tmp_path / "moved").id == one.id
    assert identity_of(tmp_path / "copy") == copy
    # A backup that was put back to the same place is a copy, too.
    shutil.copytree(tmp_path / "moved", tmp_path / "backup")
    shutil.rmtree(tmp_path / "moved")
    shutil.copytree(tmp_path / "backup", tmp_path / "moved")
    assert identity_of(tmp_path / "moved").copy_of == one.id


def test_a_moved_workspace_keeps_its_store(first, tmp_path):
    Workspace(first.workspace, first.config).forget(1)
    # Its Redis stays where it was.
    (tmp_path / "moved").mkdir()
    (first.workspace / "workspace.json").rename(tmp_path / "moved" / "workspace.json")
    with open_for_writing(first.config.store, tmp_path / "moved") as store:
        assert store.claim.read().place.endswith(f":{tmp_path}/moved")


@pytest.mark.parametrize("text", ["{", "{}", '{"id": 1}', "[1]"])
def test_a_damaged_identity_is_one_line(tmp_path, text):
    (tmp_path / "workspace.json").write_text(text)
    with pytest.raises(ManifestError, match=r"workspace.json: does not say who this workspace is"):
        identity_of(tmp_path)


def test_two_projects_share_one_redis(first, tmp_path):
    Workspace(first.workspace, first.config).forget(1)
    settings = first.config.store.model_copy(update={"project": "other"})
    for workspace, own in ((first.workspace, first.config.store), (tmp_path / "second", settings)):
        with open_for_writing(own, workspace) as store:
            assert store.claim.other() is None


def test_the_embedded_store_goes_with_the_folder(tmp_path):
    """It lies in the workspace: a copy of both is whole, and reaches nothing of the original."""
    server = EmbeddedRedis(tmp_path / "one" / STORE_FOLDER)
    server.start()
    Workspace(tmp_path / "one").forget(1)
    server.stop()
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    server = EmbeddedRedis(tmp_path / "copy" / STORE_FOLDER)
    server.start()
    try:
        assert Workspace(tmp_path / "copy").forget(2) == []
        with open_memories(StoreSettings(), tmp_path / "copy") as store:
            assert store.claim.read().id == identity_of(tmp_path / "copy").id
    finally:
        server.stop()


def test_feast_does_not_write_into_the_store_of_another_workspace(first, tmp_path):
    from uic.feature_repo.online_store import UicOnlineStore
    from uic.feature_repo.plugin.repository import repo_config

    Workspace(first.workspace, first.config).forget(1)
    (tmp_path / "second").mkdir()
    store = UicOnlineStore()
    with pytest.raises(StoreClaimError):
        store._claim(repo_config(first.config.store, tmp_path / "second")).hold()
    store._claim(repo_config(first.config.store, first.workspace)).hold()
    store._client.close()


def adopt(context: Context, monkeypatch, *words: str) -> str:
    monkeypatch.setenv("UIC_STORE__ADDRESS", context.config.store.address)
    where = ("--workspace", str(context.workspace))
    result = CliRunner().invoke(app, ["store", "adopt", *words, *where])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def test_a_store_is_adopted_with_its_log_and_its_forgotten_users(first, tmp_path, monkeypatch):
    Planner(first, RunOptions()).plan(1, 1)
    Workspace(first.workspace, first.config).forget(USER)
    backup = second(first, tmp_path / "second")
    shutil.copytree(first.log, backup.log)
    with pytest.raises(BadInputError, match="say --yes"):
        adopt(backup, monkeypatch)
    said = adopt(backup, monkeypatch, "--yes")
    assert "generation 1 (live) of mimn/untrained: " in said
    assert "1 users who were forgotten there, and not yet here" in said
    assert "is this workspace's" in said
    assert Tombstones(backup.workspace).ids().tolist() == [USER]
    Workspace(backup.workspace, backup.config).forget(2)
    with pytest.raises(StoreClaimError, match=r"tmp/.*second"):
        Workspace(first.workspace, first.config).forget(2)


def test_a_store_is_not_adopted_without_its_log_unless_that_is_meant(first, tmp_path, monkeypatch):
    Planner(first, RunOptions()).plan(1, 1)
    other = second(first, tmp_path / "second")
    with pytest.raises(ForeignEpochError, match=r"epoch 1 \(shop\).*--without-its-log"):
        adopt(other, monkeypatch, "--yes")
    adopt(other, monkeypatch, "--yes", "--without-its-log")
    # The store is its own, the generation is not: nothing is skipped in silence.
    with pytest.raises(ForeignEpochError):
        Planner(other, RunOptions()).plan(1, 1)


def test_a_running_stream_notices_that_its_store_was_taken_over(first, tmp_path):
    planner = Planner(first, RunOptions())
    plan, _ = planner.plan(1, 1)
    watch = AttemptWatch(plan, _Alive(), planner, lambda: False, print)
    assert watch._taken_over() == ""
    (tmp_path / "second").mkdir()
    with open_memories(first.config.store, tmp_path / "second") as store:
        store.claim.take()
    assert "is of workspace" in watch._taken_over()
    with pytest.raises(StoreClaimError):
        planner.plan(1, 2)


class _Alive:
    """Stands for a process that runs; the watch asks for its number alone."""

    pid = 1


def test_the_doctor_says_whose_store_it_is(first, tmp_path):
    Workspace(first.workspace, first.config).forget(1)
    found = [one for one in examine(first) if "`uic store adopt`" in one.text]
    assert not found
    (tmp_path / "second").mkdir()
    [found] = [
        one
        for one in examine(replace(first, workspace=tmp_path / "second"))
        if "`uic store adopt`" in one.text
    ]
    assert found.level is Level.WRONG
    assert not (tmp_path / "second" / "workspace.json").exists()
