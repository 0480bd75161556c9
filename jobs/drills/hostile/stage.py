"""What rows of the hostile drill are played on: targets, a service, a broker, each made when asked.

Everything lies in the drill's folder, and ends with the drill.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from uic.jobs.config.config import load_config
from uic.jobs.config.context import Context
from uic.jobs.drills.hostile.row import HostileRow
from uic.jobs.drills.hostile.target import MODEL, AttackTarget, build_template, target_of
from uic.jobs.drills.shop import ranking_service
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.topics.java import jars, jars_root, java_home
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.models.errors import BadInputError
from uic.models.memory.fold import MemoryFolder


@dataclass(frozen=True)
class Served:
    """A target and the URL of its service."""

    target: AttackTarget
    url: str


class HostileStage:
    """A folder to run rows in.

    Args:
        folder: new or empty.
        stack: closed by the caller when the last row is over.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._made = 0
        self._pool = stack.enter_context(ThreadPoolExecutor())
        self._ending: list[Future[object]] = []
        stack.callback(self._end)

    def _end(self) -> None:
        """Wait for what was to end later; raises what went wrong there."""
        for ending in self._ending:
            ending.result()

    def end_later(self, end: Callable[[], object]) -> None:
        """End something that no row waits for: a stopped Redis may take seconds to be gone."""
        self._ending.append(self._pool.submit(end))

    def new_folder(self, name: str) -> Path:
        """A folder of its own that is not there yet."""
        self._made += 1
        return self.folder / f"{self._made:02d}-{name}"

    def target(self, name: str) -> AbstractContextManager[AttackTarget]:
        """A target of one row alone, named after it."""
        return target_of(self._template, self.new_folder(name), self.end_later)

    @cached_property
    def served(self) -> Served:
        """The target whose service several rows attack, each leaving it as it was."""
        target = self._stack.enter_context(self.target("served"))
        url = self._stack.enter_context(ranking_service(target.workspace.context, MODEL))
        return Served(target, url)

    @contextmanager
    def trial(self, name: str, stream: dict[str, Any]) -> Iterator[tuple[Context, MemoryFolder]]:
        """A workspace to try the stream in, with these settings; its store ends with the block."""
        context = trial_context(self.new_folder(name), stream)
        server, folder = start_trial(context)
        try:
            yield context, folder
        finally:
            self.end_later(server.stop)

    @cached_property
    def kafka(self) -> KafkaServer:
        """A broker on loopback."""
        return self._stack.enter_context(KafkaServer(self.folder / "kafka", jars_root=self.jars))

    def missing(self, row: HostileRow) -> str:
        """Why a row cannot run here; empty if it can."""
        try:
            if row.needs:
                java_home()
            if "kafka" in row.needs:
                for kind in ("kafka", "flink"):
                    jars(kind, self.jars)
        except BadInputError as error:
            return str(error)
        if "openssl" in row.needs and shutil.which("openssl") is None:
            return "no openssl to make certificates with; install it"
        return ""

    @cached_property
    def _template(self) -> Path:
        path = self.new_folder("template")
        build_template(path)
        return path

    @property
    def jars(self) -> Path:
        """Where Kafka's and Flink's are, if they are."""
        return jars_root(load_config(None).stream.jars_folder, self.folder)


def on_target(name: str, check: Callable[[AttackTarget], str]) -> Callable[[HostileStage], str]:
    """What a row does, to a target of its own."""

    def run(stage: HostileStage) -> str:
        with stage.target(name) as target:
            return check(target)

    return run


@contextmanager
def open_stage(folder: Path) -> Iterator[HostileStage]:
    """A stage, and at its end nothing that runs."""
    with ExitStack() as stack:
        yield HostileStage(folder, stack)
