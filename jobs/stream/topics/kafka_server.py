"""A real Kafka broker (KRaft, one node) on loopback, for development, tests and benchmarks.

`uic events broker` runs it in the foreground. It is started from Maven's jars
(`uic.jobs.stream.topics.java`), keeps its data in the folder that it is given, listens on free
ports unless one is named, and stamps records with their append time, as the event log's contract
asks.
"""

import contextlib
import os
import re
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from uic.jobs.stream.topics.java import jars, java_home
from uic.models.errors import UicError

START_SECONDS: Final = 60.0
_TOPIC_SECONDS: Final = 20.0
_LOG4J: Final = """status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {folder}/broker.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""
_SETTINGS: Final = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
# The log time of an event is when the log got it, whatever its producer's clock says.
log.message.timestamp.type=LogAppendTime
log.retention.check.interval.ms=1000
"""


class KafkaServerError(UicError):
    """The broker did not start."""


class BrokerEndedError(KafkaServerError):
    """The broker ended by itself, or was killed."""

    exit_code = 1


class KafkaServer:
    """One broker in `folder`; use it as a context, or call `start` and `stop`.

    A folder can be started again with its data: the ports stay the same.

    Args:
        folder: of its data and logs.
        port: TCP port on loopback; 0 takes a free one.
        heap_mib: of its Java process.
        jars_root: folder with `kafka/`; None: `infra/jars` of the current folder.
    """

    def __init__(
        self, folder: Path, port: int = 0, heap_mib: int = 512, jars_root: Path | None = None
    ) -> None:
        self.folder = folder
        self.jars_root = jars_root
        self.heap_mib = heap_mib
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def brokers(self) -> str:
        """What clients call `bootstrap.servers`."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, for those who want to kill it."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Start the broker and wait until it answers.

        Raises:
            KafkaServerError: its port is another process's, it ended, or it did not answer in
                time; names its log.
        """
        java = java_home() / "bin" / "java"
        classpath = os.pathsep.join(str(jar) for jar in jars("kafka", self.jars_root))
        settings = self.folder / "server.properties"
        known = settings.exists()
        self._port = _port_of(settings) if known else self._port or free_port()
        self._refuse_taken_port()
        if not known:
            self._write_settings(settings)
            # A cluster id is 16 bytes in URL-safe base64 without padding, and may begin with "-":
            # as a word of its own the tool would take one in 64 for an option.
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            tool = [str(java), *self._options(), "-cp", classpath, "kafka.tools.StorageTool"]
            done = subprocess.run(  # noqa: S603 - our own Java with our own arguments
                [*tool, "format", f"--cluster-id={cluster}", "-c", str(settings)],
                capture_output=True,
                check=False,
            )
            if done.returncode:
                settings.unlink()  # the next start formats again
                msg = f"{self.folder}: cannot format: {done.stderr.decode().strip()[-400:]}"
                raise KafkaServerError(msg)
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(  # noqa: S603
                [str(java), *self._options(), "-cp", classpath, "kafka.Kafka", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._wait_until_up()
        return self

    def stop(self) -> None:
        """Stop it cleanly, by force after 15 seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it with SIGKILL, as a crash does."""
        if self._process is not None:
            self._process.kill()  # nothing to kill if it has ended
            self._process.wait()
            self._process = None

    def require_running(self) -> None:
        """Raise if the broker's process has ended.

        Raises:
            BrokerEndedError: names its log.
        """
        if not self.is_running:
            msg = f"{self.folder}: the broker at {self.brokers} has ended; see broker.log there"
            raise BrokerEndedError(msg)

    @property
    def is_running(self) -> bool:
        """Whether the broker's process is there."""
        return self._process is not None and self._process.poll() is None

    def create_topic(
        self, topic: str, partitions: int, settings: dict[str, str] | None = None
    ) -> None:
        """Make a topic and wait until it is there.

        Raises:
            KafkaServerError: it does not appear.
        """
        # Only users of a broker load the client, whose __all__ misses a name.
        from confluent_kafka.admin import (  # type: ignore[attr-defined]  # noqa: PLC0415
            AdminClient,
            NewTopic,
        )

        admin = AdminClient({"bootstrap.servers": self.brokers})
        fresh = NewTopic(topic, num_partitions=partitions, config=settings or {})
        admin.create_topics([fresh])[topic].result(30)
        until = time.monotonic() + _TOPIC_SECONDS
        while time.monotonic() < until:
            found = admin.list_topics(timeout=5).topics.get(topic)
            if found is not None and len(found.partitions) == partitions:
                return
            time.sleep(0.05)
        msg = (
            f"{self.brokers}: topic {topic} was made, but is not there after {_TOPIC_SECONDS:.0f} s"
        )
        raise KafkaServerError(msg)

    def ensure_topic(self, topic: str, partitions: int) -> None:
        """Make a topic unless it is there.

        Raises:
            KafkaServerError: it does not appear.
        """
        from confluent_kafka import KafkaException  # noqa: PLC0415 - as in `create_topic`

        try:
            self.create_topic(topic, partitions)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise

    def _write_settings(self, settings: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(_LOG4J.format(folder=self.folder.resolve()))
        settings.write_text(
            _SETTINGS.format(
                port=self._port, controller_port=free_port(), folder=self.folder.resolve()
            )
        )

    def _refuse_taken_port(self) -> None:
        """Another process that answers there would be taken for our broker.

        Raises:
            KafkaServerError: another process listens on the port.
        """
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.2):
            msg = (
                f"127.0.0.1:{self._port} is another process's, perhaps another workspace's broker; "
                "stop that, or take another port (--port N; a folder that has a broker's data "
                f"keeps its port, in {self.folder / 'server.properties'})"
            )
            raise KafkaServerError(msg)

    def _cluster(self) -> str:
        """The id that the folder was formatted with."""
        text = (self.folder / "data" / "meta.properties").read_text()
        return str(re.findall(r"^cluster\.id=(.*)$", text, re.MULTILINE)[0])

    def _options(self) -> list[str]:
        return [
            f"-Xmx{self.heap_mib}m",
            # One node for development: a quick start matters more than throughput of the collector.
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self.folder.resolve()}/log4j2.properties",
        ]

    def _wait_until_up(self) -> None:
        assert self._process is not None  # noqa: S101 - only called by start
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.1)
        self.kill()
        tail = (self.folder / "console.log").read_text(errors="replace").strip()[-400:]
        msg = f"{self.folder}: the broker did not come up; see broker.log there: {tail}"
        raise KafkaServerError(msg)

    def _answers(self) -> bool:
        """Whether this broker is registered, which is later than an open port.

        An address says nothing of who answers there; the cluster's id does.
        """
        from confluent_kafka import KafkaException  # noqa: PLC0415
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415

        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=0.2):
                pass
            admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
            found = admin.list_topics(timeout=2)
            return len(found.brokers) == 1 and found.cluster_id == self._cluster()
        except (OSError, KafkaException):
            return False

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()


def free_port() -> int:
    """A TCP port of loopback that no process listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port_of(settings: Path) -> int:
    for line in settings.read_text().splitlines():
        if line.startswith("advertised.listeners="):
            return int(line.rsplit(":", 1)[1])
    msg = f"{settings}: no advertised.listeners; remove the folder to start afresh"
    raise KafkaServerError(msg)
