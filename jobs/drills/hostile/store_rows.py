"""A8, A9, A12b and A17: a store that loses, is set back, is another's, or is loaded twice."""

import shutil
from collections.abc import Sequence
from functools import partial
from typing import Final

from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.errors import GenerationStateError
from uic.feature_repo.store.generations import State
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.tombstones import NAME as TOMBSTONES
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.stage import HostileStage, on_target
from uic.jobs.drills.hostile.target import GENERATION, AttackTarget
from uic.jobs.drills.killer import AOF_NAME
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import UicError

_EVENTS: Final = 40


def _forgets(target: AttackTarget, *, tombstones: bool) -> str:
    """A8: forget a user, lose Redis, and do what the operations say."""
    user = target.users[2]
    held = target.workspace.forget(user)
    with target.store() as store:
        store.client.flushall()
    if not tombstones:
        (target.path / TOMBSTONES).unlink()
    target.workspace.load()
    target.workspace.switch(GENERATION)
    require(target.memory(user) is None, f"user {user}, who was forgotten, is served again")
    others = target.memory(target.users[3])
    require(others is not None, "the others were not loaded")
    return f"user {user} of generation {held[0]} stays unknown; {target.require_right()}"


def _set_back(target: AttackTarget, *, older: bool) -> str:
    """A9: put Redis back to its files of before some events, and audit while nothing is sent."""
    server = EmbeddedRedis(target.path / STORE_FOLDER)
    aof, copy = server.directory / AOF_NAME, target.path / "older.aof"
    server.kill()
    shutil.copyfile(aof, copy)
    server.start()
    target.stream(target.register_topic(), target.clicks(0, range(_EVENTS)))
    target.workspace.compact(target.day.date())
    server.kill()
    if older:
        copy.replace(aof)
    server.start()
    faults = target.faults()
    require(faults, f"the audit says that all is well, {_EVENTS} events after the store's copy")
    require("not passed" in faults[0], f"audit: {faults[0]}")
    return f"audit: {faults[0]}"


def _copied(stage: HostileStage) -> str:
    """A12: what a copy of a workspace does while the original's store runs."""
    with stage.target("original") as target:
        copy = Workspace(stage.new_folder("copy"))
        shutil.copytree(target.path, copy.path, symlinks=True)
        user = target.users[0]
        refused = []
        for deed in (
            lambda: copy.forget(user),
            copy.load,
            lambda: copy.switch(GENERATION),
        ):
            try:
                deed()
            except UicError as error:
                refused.append(str(error))
        require(len(refused) == 3, f"a copy wrote to the store of its original; {refused}")
        require(all("this is a copy" in text for text in refused), refused[0])
        stopped = copy.store.stop()
        require(not stopped, "a copy stopped the store of its original")
        return f"forget, load and switch in a copy are refused; {_is_there(target, user)}"


def _is_there(target: AttackTarget, user: int) -> str:
    require(target.memory(user) is not None, f"user {user} is gone from the original")
    return f"user {user} of the original is there"


def _copied_control(stage: HostileStage) -> str:
    """What `forget` in a copy once did."""
    with stage.target("original-control") as target:
        target.workspace.forget(target.users[0])
        return _is_there(target, target.users[0])


def _loads(target: AttackTarget) -> str:
    """A17: the load of an older snapshot goes on after that of a newer one has begun."""
    first, second = sorted(target.workspace.snapshots(), key=lambda one: one.name)
    with target.store() as store:
        store.client.flushall()

        def begin_second(_: int) -> None:
            store.generations.register(second.as_generation())

        try:
            load_values(first, store.memories, store.generations, begin_second)
        except GenerationStateError as error:
            refused = str(error)
        else:
            refused = ""
        require("another load has begun" in refused, f"the first load ended with {refused!r}")
        state = store.generations.get(GENERATION).state
        require(state is State.LOADING, f"the generation is {state}")
    target.workspace.load()
    target.workspace.switch(GENERATION)
    return "the first load ends with an error, the generation is not ready; loaded again"


def _loaded_twice(stage: HostileStage) -> str:
    with stage.target("loads") as target:
        return f"{_loads(target)}: {target.require_right()}"


def _loaded_twice_control(stage: HostileStage) -> str:
    """What such a pair of loads once left: a memory of the first under markers of the second."""
    with stage.target("loads-control") as target:
        first, _ = sorted(target.workspace.snapshots(), key=lambda one: one.name)
        for ids, records in first.batches():
            for user, record in zip(ids.tolist(), records, strict=True):
                target.put(user, record.tobytes())
        return target.require_right()


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A8",
        "a user is forgotten, then Redis is lost and loaded again from the snapshot",
        "the user stays unknown, and the audit agrees",
        on_target("forgotten", partial(_forgets, tombstones=True)),
        on_target("forgotten-control", partial(_forgets, tombstones=False)),
    ),
    HostileRow(
        "A9",
        "Redis is put back to an older copy while no event comes",
        "the audit says that the markers stand behind the log",
        on_target("older", partial(_set_back, older=True)),
        on_target("older-control", partial(_set_back, older=False)),
    ),
    HostileRow(
        "A12b",
        "a copy of a workspace forgets, loads, switches and stops while the original's store runs",
        "the copy is refused, the original's memories and store stay",
        _copied,
        _copied_control,
    ),
    HostileRow(
        "A17",
        "two loads of different snapshots of one generation at once",
        "the overtaken one ends with an error, nothing mixed becomes ready",
        _loaded_twice,
        _loaded_twice_control,
    ),
)
