"""`uic doctor`: looks at an installation and says, line by line, what would not work, and why."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from uic.feature_repo.store.generation import Generation
from uic.jobs.config.context import Context
from uic.models.errors import BadInputError, UicError

# What a day of a small shop needs; the demo needs about as much.
_FREE_DISK_BYTES: Final = 2 * 2**30
_FREE_MEMORY_BYTES: Final = 3 * 2**30
# Packages whose other versions we have met with other behaviour (pyproject.toml says which).
_PINNED: Final = ("apache-flink", "apache-beam", "feast", "torch", "pyarrow", "redis")


class Level(StrEnum):
    """How good or bad a finding is."""

    OK = "ok"
    REMARK = "remark"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, what to do."""

    level: Level
    subject: str
    text: str


def examine(context: Context) -> Iterator[Finding]:
    """All findings, in the order in which one would put them right."""
    checks: tuple[tuple[str, Callable[[Context], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("settings", _settings),
        ("machine", _machine),
        ("java", _java),
        ("log", _log),
        ("kernels", _kernels),
        ("models", _models),
        ("store", _store),
        ("kafka", _kafka),
        ("listens", _listeners),
    )
    for subject, check in checks:
        try:
            yield from check(context)
        except UicError as error:
            yield Finding(Level.WRONG, subject, " ".join(str(error).split()))


def _python(_: Context) -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info[:2] == (3, 11)
    yield Finding(
        Level.OK if good else Level.WRONG, "python", f"{version}{'' if good else ', expected 3.11'}"
    )
    wanted = {}
    for line in metadata.requires("user-interest-center") or []:
        name, _equals, rest = line.partition("==")
        if rest and ";" not in rest:
            wanted[name.split("[")[0].strip()] = rest.strip()
    for name in _PINNED:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(Level.WRONG, "packages", f"{name} is not installed; run `make install`")
            continue
        expected = wanted.get(name, found)
        if found.split("+")[0] != expected:
            text = f"{name} {found}, expected {expected}; run `make install`"
            yield Finding(Level.WRONG, "packages", text)
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads != "1":
        text = f"OMP_NUM_THREADS is {threads or 'not set'}; 1 is faster: processes share the work"
        yield Finding(Level.REMARK, "threads", text)


def _settings(context: Context) -> Iterator[Finding]:
    where = context.config_path or "defaults and environment"
    yield Finding(Level.OK, "settings", f"{where}; `uic config show` prints them")


def _machine(context: Context) -> Iterator[Finding]:
    folder = context.workspace.resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Finding(Level.WRONG, "workspace", f"{folder}: not writable")
    for place in _file_systems(context, folder):
        free = shutil.disk_usage(place).free
        level = Level.OK if free >= _FREE_DISK_BYTES else Level.WRONG
        yield Finding(level, "disk", f"{free / 2**30:.1f} GiB free under {place}")
    memory = psutil.virtual_memory().available
    yield Finding(
        Level.OK if memory >= _FREE_MEMORY_BYTES else Level.REMARK,
        "memory",
        f"{memory / 2**30:.1f} GiB available, {psutil.cpu_count()} cores",
    )


def _file_systems(context: Context, folder: Path) -> Iterator[Path]:
    """The first folder of each file system on which something of the workspace lies."""
    checkpoints = context.config.stream.checkpoint_folder
    others = sorted(folder.glob("*")) if folder == context.workspace.resolve() else []
    seen: set[int] = set()
    for place in (folder, *others, *([checkpoints] if checkpoints else [])):
        if place.is_dir() and place.stat().st_dev not in seen:
            seen.add(place.stat().st_dev)
            yield place


def _java(context: Context) -> Iterator[Finding]:
    from uic.jobs.stream.topics.java import (  # noqa: PLC0415 - looks for a Java
        jars,
        jars_root,
        java_home,
    )

    yield Finding(Level.OK, "java", f"{java_home()}, for the stream job")
    if context.config.stream.source == "kafka":
        try:
            connector = jars(
                "flink", jars_root(context.config.stream.jars_folder, context.workspace)
            )
        except BadInputError as error:
            yield Finding(Level.REMARK, "jars", str(error))
        else:
            yield Finding(Level.OK, "jars", f"{connector[0].parent}, for events from Kafka")


def _log(context: Context) -> Iterator[Finding]:
    from uic.pipelines.log.event_log import EventLog  # noqa: PLC0415 - pyarrow

    log = EventLog(context.log)
    files = log.behavior_files()
    if not files:
        yield Finding(Level.REMARK, "log", f"{context.log}: empty; `uic import` or `uic simulate`")
        return
    rows = sum(file.rows for file in files)
    text = f"{rows:,} behaviours, {files[0].dt} to {files[-1].dt}, {len(log.epochs())} epochs"
    yield Finding(Level.OK, "log", text)
    zone = log.time_zone()
    if zone != context.config.time_zone:
        text = f"the log's days are of {zone}, the settings say {context.config.time_zone}"
        yield Finding(Level.WRONG, "time zone", f"{text}; set time_zone: {zone}")


def _kernels(context: Context) -> Iterator[Finding]:
    from uic.feature_repo.snapshots.snapshots import list_snapshots  # noqa: PLC0415 - pyarrow
    from uic.models.kernels.compiled import CACHE_FOLDER, folded_by  # noqa: PLC0415 - numba

    kernels, cpu = folded_by().values()
    where = CACHE_FOLDER or "no folder is writable: compiled anew in every process"
    yield Finding(
        Level.OK if CACHE_FOLDER else Level.REMARK, "kernels", f"{kernels} for {cpu}, {where}"
    )
    for snapshot in list_snapshots(context.memories):
        other = snapshot.folded_by.get("kernels", kernels)
        if other != kernels:
            text = f"memories {snapshot.name} were folded by kernels {other}, these are {kernels}"
            fix = "build a generation, or the audit compares two versions of the fold"
            yield Finding(Level.REMARK, "kernels", f"{text}; {fix}")


def _models(context: Context) -> Iterator[Finding]:
    from uic.models.bundles.documents import (  # noqa: PLC0415 - torch
        CONFIG,
        load_config,
        read_bundle_manifest,
    )
    from uic.models.bundles.shelf import BundleShelf  # noqa: PLC0415
    from uic.models.state.definition import StateDefinition  # noqa: PLC0415 - numba
    from uic.models.state.part import StateFileError  # noqa: PLC0415 - numba

    shelf = BundleShelf(context.bundles)
    if not shelf.models():
        yield Finding(Level.REMARK, "models", f"{context.bundles}: none; `uic train`")
    for model in shelf.models():
        version = shelf.current(model)
        if version is None:
            text = f"{model}: no current version; `uic bundle use {model} VERSION`"
            yield Finding(Level.WRONG, "models", text)
            continue
        folder = shelf.path(model, version)
        read_bundle_manifest(folder)
        yield Finding(Level.OK, "models", f"{model}/{version} is current")
        state = load_config(folder / CONFIG).state
        if state is None:
            continue
        try:
            parts = StateDefinition.of_document(state, f"{model}/{version}").parts
        except StateFileError as error:  # of a class of one's own that is not found here
            yield Finding(Level.WRONG, "parts", str(error))
        else:
            names = ", ".join(part.name for part in parts)
            yield Finding(Level.OK, "parts", f"{model}/{version}: {names}")


def _store(context: Context) -> Iterator[Finding]:
    from uic.feature_repo.store.connection import server_facts  # noqa: PLC0415 - redis
    from uic.feature_repo.store.errors import StoreUnavailableError  # noqa: PLC0415 - redis
    from uic.feature_repo.store.opened import open_memories  # noqa: PLC0415

    settings = context.config.store
    try:
        with open_memories(settings, context.workspace) as store:
            facts = server_facts(store.client, str(store.address))
            generations = store.generations.all()
            other = store.claim.other()
    except StoreUnavailableError as error:
        # Without an address it is our own, and simply not started.
        level = Level.REMARK if settings.address is None else Level.WRONG
        yield Finding(level, "store", " ".join(str(error).split()))
        return
    if facts is None:
        text = f"{store.address}: this user may not run INFO: durability and role are unknown"
        yield Finding(Level.REMARK, "store", text)
        facts = {"aof_enabled": 1, "role": "master"}
    else:
        yield Finding(Level.OK, "store", f"{store.address}: Redis {facts['redis_version']}")
    if not facts.get("aof_enabled"):
        text = f"{store.address}: appendonly is off: a crash loses memories; set appendonly yes"
        yield Finding(Level.WRONG, "store", text)
    if facts.get("role") != "master":
        text = f"{store.address}: is a {facts.get('role')}; writes need the primary"
        yield Finding(Level.WRONG, "store", text)
    if other is not None:
        text = f"{store.address}: is of {other}; this workspace may read it and not write"
        fix = "`uic store adopt` takes it over"
        yield Finding(Level.WRONG, "store", f"{text}; {fix}")
    yield from _generations(context.bundles, generations)


def _generations(bundles: Path, generations: list[Generation]) -> Iterator[Finding]:
    if not generations:
        text = "no generation; `uic memories build`, `load` and `switch`"
        yield Finding(Level.REMARK, "memories", text)
    elif not any(found.state == "live" for found in generations):
        yield Finding(Level.WRONG, "memories", "none is live; `uic memories switch NUMBER`")
    for found in generations:
        folder = bundles / found.bundle_name
        if found.state != "dropping" and not folder.is_dir():
            text = f"generation {found.number} is of {found.bundle_name}, which is not in {bundles}"
            yield Finding(Level.WRONG, "memories", f"{text}; copy it there, or drop the generation")
            continue
        text = f"generation {found.number} ({found.state}): {found.rows:,} users"
        yield Finding(Level.OK, "memories", text)


def _kafka(context: Context) -> Iterator[Finding]:
    from uic.jobs.stream.run.lag import unread_of  # noqa: PLC0415 - librdkafka
    from uic.jobs.stream.topics.brokers import brokers_of  # noqa: PLC0415 - for Kafka alone
    from uic.jobs.stream.topics.kafka_link import NoBrokerError  # noqa: PLC0415 - librdkafka
    from uic.jobs.stream.topics.kafka_topic import (  # noqa: PLC0415 - librdkafka
        TopicError,
        describe_topic,
    )
    from uic.pipelines.log.event_log import EventLog  # noqa: PLC0415 - pyarrow

    stream = context.config.stream
    if stream.source != "kafka":
        yield Finding(Level.OK, "kafka", "not used: stream.source is files")
        return
    try:
        topic = describe_topic(brokers_of(stream), stream.topic)
    except (NoBrokerError, TopicError) as error:
        level = Level.REMARK if stream.brokers.startswith("127.0.0.1") else Level.WRONG
        yield Finding(level, "kafka", " ".join(str(error).split()))
        return
    text = f"{stream.brokers}: topic {topic.name}, {topic.partitions} partitions"
    yield Finding(Level.OK, "kafka", text)
    epochs = EventLog(context.log).epochs()
    unread, why = unread_of(topic, epochs)
    if why and (topic.epoch_in(epochs) or topic.epoch_before(epochs)):
        waits = f"{sum(unread.values()):,} events in partitions {', '.join(map(str, unread))}"
        text = f"{why}; {waits} are not read" if unread else why
        yield Finding(Level.WRONG, "kafka", text)
    if not topic.log_append_time:
        text = f"topic {topic.name}: set message.timestamp.type=LogAppendTime"
        yield Finding(Level.WRONG, "kafka", text)
    if stream.parallelism > topic.partitions:
        text = f"stream.parallelism is {stream.parallelism}, the topic has {topic.partitions}"
        yield Finding(Level.WRONG, "kafka", f"{text}; at most one subtask a partition")


def _listeners(context: Context) -> Iterator[Finding]:
    """What the store and the streams of this workspace listen on."""
    from uic.feature_repo.store.connection import STORE_FOLDER  # noqa: PLC0415 - redis
    from uic.feature_repo.store.server import EmbeddedRedis  # noqa: PLC0415
    from uic.jobs.stream.run.listeners import described, exposed, listeners  # noqa: PLC0415
    from uic.jobs.stream.run.metrics_relay import meant_ports  # noqa: PLC0415
    from uic.jobs.stream.run.supervisor import all_running  # noqa: PLC0415

    stream = context.config.stream
    server = EmbeddedRedis(context.workspace / STORE_FOLDER).running()
    found = {}
    if server is not None:
        found["the store"] = (server.address, listeners(server.pid))
    for run in all_running(context.workspace):
        names = {run["rest_port"]: "Flink's REST", stream.prometheus_port: "Flink's metrics"}
        sockets = listeners(run["pid"])
        whose = f"generation {run['generation']}'s stream"
        found[whose] = (described(sockets, names), sockets)
    for whose, (where, sockets) in found.items():
        yield Finding(Level.OK, "listens", f"{whose} on {where}")
        for text in exposed(sockets, meant_ports(stream)):
            yield Finding(Level.WRONG, "listens", f"{whose}: {text}")
