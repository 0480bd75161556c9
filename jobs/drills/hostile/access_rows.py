"""A11, A12a and A14: who gets into Kafka and Redis, and whose store it is."""

import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.errors import StoreClaimError
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis, Running
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.checks.doctor import Level, examine
from uic.jobs.config.context import Context
from uic.jobs.config.stream import StreamSettings
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.secured_kafka import PASSWORD, USER, SecuredKafka
from uic.jobs.drills.hostile.stage import HostileStage
from uic.jobs.drills.hostile.target import GENERATION, AttackTarget
from uic.jobs.drills.log import DrillLog, batch_fold
from uic.jobs.stream.letters.dead_letters import letters_of
from uic.jobs.stream.run.lag import lag_lines
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.event_files import write_event_file
from uic.jobs.stream.topics.kafka_link import BrokerAccessError
from uic.jobs.stream.topics.kafka_topic import describe_topic
from uic.jobs.stream.topics.produce import Pace, send_to_kafka

_VARIABLE: Final = "UIC_STREAM__SECURITY__PASSWORD"
_STRANGER: Final = 65_534  # of every Linux: a user who owns nothing


@contextmanager
def _password(text: str) -> Iterator[None]:
    """The password of Kafka in the environment, where a secret is."""
    os.environ[_VARIABLE] = text
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def _way_in(kafka: SecuredKafka, **changed: Any) -> dict[str, Any]:
    """Settings of `stream` that lead to the listener for logins and certificates."""
    security = {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": USER,
        "ca_file": str(kafka.folder / "ca.pem"),
        "cert_file": str(kafka.folder / "client.pem"),
        "key_file": str(kafka.folder / "client.key"),
    } | changed
    return {
        "brokers": kafka.at("BOTH"),
        "dead_letter_topic": "letters",
        "checkpoint_seconds": 2.0,
        "security": security,
    }


def _secured(stage: HostileStage) -> str:
    """A11."""
    with SecuredKafka(stage.new_folder("secured"), stage.jars) as kafka:
        for topic, partitions in (("behaviours", 2), ("letters", 1)):
            kafka.create_topic(topic, partitions)
        refused = _kept_out(kafka)
        with _password(PASSWORD), stage.trial("secured", _way_in(kafka)) as (context, fold):
            log = DrillLog.make(4000, 100, 2, seed=5)
            send_to_kafka([log.outgoing], brokers_of(context.config.stream), "behaviours", Pace())
            said: list[str] = []
            planner = Planner(context, RunOptions(until_end=True))
            Supervisor(planner, said.append).run()
            expected = batch_fold(log.logged(context.config.stream), fold, context.config.log)
            store = PackedStore(planner.client, planner.keys, address=str(planner.address))
            wrong, users = expected.wrong_in(store, 1), len(expected.memories)
            require(wrong == 0 < users, f"{wrong} of {users} memories differ")
            letters = {(one.partition, one.offset): one.reason for one in letters_of(context)}
            require(letters == expected.rejects, f"{len(letters)} letters: not the parser's")
            lag, *_ = lag_lines(planner, GENERATION)
            require(lag.endswith("0 events: 0: 0, 1: 0"), f"stream status: {lag}")
            wrong_here = [
                one.text
                for one in examine(context)
                if one.subject == "kafka" and one.level is not Level.OK
            ]
            require(not wrong_here, f"doctor: {wrong_here}")
        read = _tells_no_secret(context.workspace, said)
    return (
        f"{refused} wrong ways in are refused in a line each; by SCRAM, TLS and certificate "
        f"{users} memories and {len(letters)} letters; no secret in {read} files"
    )


def _kept_out(kafka: SecuredKafka) -> int:
    """Wrong ways in; how many."""
    ways: Sequence[tuple[str, Mapping[str, Any]]] = (
        ("wrong", {}),
        (PASSWORD, {"username": "stranger"}),
        (PASSWORD, {"ca_file": str(kafka.folder / "other-ca.pem")}),
        (PASSWORD, {"cert_file": None, "key_file": None}),
    )
    for password, changed in ways:
        with _password(password):
            settings = _way_in(kafka, **changed)
            settings["security"]["password"] = password
            _refused(StreamSettings.model_validate(settings))
    return len(ways)


def _refused(settings: StreamSettings) -> None:
    try:
        describe_topic(brokers_of(settings), "behaviours")
    except BrokerAccessError as error:
        one_line = "\n" not in str(error) and PASSWORD not in str(error)
        require(one_line and not error.passing, str(error).replace(PASSWORD, "(the password)"))
        return
    require(held=False, seen=f"let in as {settings.security.username or 'anyone'}")


def _secured_control(stage: HostileStage) -> None:
    """The broker's plain listener, which lets everyone in."""
    stage.kafka.create_topic("behaviours", 1)
    _refused(StreamSettings(brokers=stage.kafka.brokers))


def _tells_no_secret(workspace: Path, said: Sequence[str]) -> int:
    """Plans, logs, checkpoints, archives and what was said; how many files were read."""
    quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    paths = [path for path in workspace.rglob("*") if path.is_file()]
    for path in paths:
        content = path.read_bytes()
        told = PASSWORD.encode() in content or quoted.encode() in content
        require(not told, f"{path} has the password")
    require(PASSWORD not in "".join(said), "the stream said the password")
    return len(paths)


def _foreign(stage: HostileStage) -> str:
    """A12a: a workspace of another machine, without the log, and the same store."""
    with stage.target("claimed") as target:
        folder = stage.new_folder("foreign")
        shutil.copytree(target.workspace.context.bundles, folder / "bundles")
        write_event_file(folder / "events" / "0.jsonl.gz", target.clicks(0, range(10)))
        config = target.workspace.config
        stream = config.stream.model_copy(update={"files": folder / "events", "parallelism": 1})
        store = StoreSettings(address=_server(target).address)
        other = Context(folder, config.model_copy(update={"stream": stream, "store": store}), None)
        before = _markers(target)
        try:
            Planner(other, RunOptions()).plan(GENERATION, 1)
        except StoreClaimError:
            refused = "its stream is refused"
        else:
            refused = "its stream was planned"
        return f"{refused}; {_untouched(target, before)}"


def _server(target: AttackTarget) -> Running:
    running = EmbeddedRedis(target.path / STORE_FOLDER).running()
    assert running is not None  # noqa: S101 - of a target
    return running


def _markers(target: AttackTarget) -> dict[int, dict[int, int]]:
    with target.store() as store:
        return store.generations.markers(GENERATION)


def _untouched(target: AttackTarget, before: Mapping[int, Mapping[int, int]]) -> str:
    now = _markers(target)
    require(now == before, f"markers were {before} and are {now}")
    return f"the markers stay; {target.require_right()}"


def _foreign_control(stage: HostileStage) -> str:
    """What such a stream once did: its first epoch went on where the import's markers stood."""
    with stage.target("claimed-control") as target:
        before = _markers(target)
        with target.store() as store:
            markers = store.generations.keys.markers(GENERATION)
            for partition, offset in before[1].items():
                store.client.hset(markers, f"1:{partition}", str(offset + 100))
        return _untouched(target, before)


def _embedded(stage: HostileStage) -> str:
    """A14."""
    with stage.target("embedded") as target:
        running = _server(target)
        ports = psutil.Process(running.pid).net_connections("inet")
        require(not ports, f"the embedded Redis listens on {ports}")
        return _closed_to_others(Path(running.address.removeprefix("unix://")))


def _closed_to_others(path: Path) -> str:
    """A socket that its owner alone may open."""
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path.parent, path)]
    shown = " and ".join(f"{mode:04o}" for mode in modes)
    require(not any(mode & 0o077 for mode in modes), f"its folder and its socket are {shown}")
    if os.getuid() != 0:
        return f"no port; its folder and its socket are {shown}"
    answer = _reached_by(_STRANGER, path)
    require(answer == errno.EACCES, f"another user of the machine gets {os.strerror(answer)}")
    return f"no port; its folder and its socket are {shown}; another user is told: no access"


def _reached_by(user: int, path: Path) -> int:
    """What `connect` answers another user of the machine; 0 if it lets them in."""
    child = os.fork()
    if child == 0:
        os.setuid(user)
        os._exit(socket.socket(socket.AF_UNIX).connect_ex(str(path)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _embedded_control(_: HostileStage) -> str:
    """A socket that every user of the machine may open."""
    with (
        tempfile.TemporaryDirectory(prefix="uic-drill-") as folder,
        socket.socket(socket.AF_UNIX) as server,
    ):
        path = Path(folder) / "open.sock"
        server.bind(str(path))
        server.listen()
        path.parent.chmod(0o755)
        path.chmod(0o666)
        return _closed_to_others(path)


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A11",
        "a Kafka with TLS, logins and certificates of clients; wrong ways into it",
        "each wrong way is one line and no secret; the right one streams, letters and all",
        _secured,
        _secured_control,
        needs=("java", "kafka", "openssl"),
    ),
    HostileRow(
        "A12a",
        "a second workspace, without the log, streams into the same store",
        "it is refused before anything is written",
        _foreign,
        _foreign_control,
    ),
    HostileRow(
        "A14",
        "another user of the machine opens the embedded Redis",
        "it has no port, and its socket is its owner's alone",
        _embedded,
        _embedded_control,
    ),
)
