"""Kills what streams: Python workers, the JVM, redis-server, or Redis' newest writes."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Final

import psutil

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.stream.run.planner import Planner
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import running

KILLS: Final = ("worker", "java", "redis", "away", "restore")
AOF_NAME: Final = "appendonly.aof"
_LOOK_SECONDS: Final = 0.05
# Between the copy of Redis' files and their return: more than one batch is lost.
_RESTORE_EVENTS: Final = 2000
# A worker waits 4 s in a drill: `redis` is within the limit, `away` is beyond it.
RETRY_SECONDS: Final = 4.0
_REDIS_BACK_SECONDS: Final = {"redis": 1.0, "away": 9.0}


class Killer:
    """Waits for moments of the log, and kills.

    Args:
        planner: of the stream.
        server: its Redis.
        streaming: whether the stream has not ended.
        generation: that streams.
    """

    def __init__(
        self,
        planner: Planner,
        server: EmbeddedRedis,
        streaming: Callable[[], bool],
        generation: int = 1,
    ) -> None:
        self.generation = generation
        self._planner = planner
        self.server = server
        self._streaming = streaming

    def folded(self) -> int:
        """Events that the store's markers have passed; -1 while it does not answer."""
        try:
            marks = self._planner.generations.markers(self.generation)
        except StoreError:
            return -1
        return sum(offset + 1 for epoch in marks.values() for offset in epoch.values())

    def wait_for(self, events: int) -> bool:
        """Wait until so many events are folded; False if the stream ended before."""
        while self._streaming():
            if self.folded() >= events:
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    def kill(self, name: str) -> str:
        """Kill, start Redis again if it was that, and say what was done."""
        at = self.folded()
        if name == "restore":
            return self._restore(at)
        if name in _REDIS_BACK_SECONDS:
            seconds = _REDIS_BACK_SECONDS[name]
            found = self.server.running()
            self.server.kill()
            time.sleep(seconds)
            self.server.start()
            pid = found.pid if found else 0
            return (
                f"killed redis-server (process {pid}) at {at:,} events, back after {seconds:.0f} s"
            )
        process = self._process(name)
        if process is None:
            return f"no {name} to kill at {at:,} events: it had just ended"
        os.kill(process.pid, signal.SIGKILL)
        return f"killed the {name} (process {process.pid}) at {at:,} events"

    def _restore(self, at: int) -> str:
        aof = self.server.directory / AOF_NAME
        copy = aof.with_name("copy.aof")
        shutil.copyfile(aof, copy)
        self.wait_for(at + _RESTORE_EVENTS)
        later = self.folded()
        self.server.kill()
        copy.replace(aof)
        self.server.start()
        return f"put Redis at {later:,} events back to its files of {at:,} events"

    def _process(self, name: str) -> psutil.Process | None:
        """The attempt's Python worker or Java; waits while the attempt is only starting."""
        mark = "beam_boot" if name == "worker" else "java"
        folder = self._planner.folder / folder_name(self.generation)
        while self._streaming():
            found = running(folder)
            try:
                group = (
                    psutil.Process(found["attempt_pid"]).children(recursive=True) if found else []
                )
                for process in group:
                    command = process.cmdline()
                    if command and (
                        mark in " ".join(command) if name == "worker" else "java" in command[0]
                    ):
                        return process
            except psutil.NoSuchProcess:
                pass  # ended between two looks: the next attempt is coming
            time.sleep(_LOOK_SECONDS)
        return None
