"""A Flink session cluster from the scripts of the pip package, as `infra/` deploys one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pyflink

from uic.jobs.drills.errors import DrillFailedError
from uic.jobs.stream.run import attempt
from uic.jobs.stream.topics.java import java_home
from uic.jobs.stream.topics.kafka_server import free_port

_BIN: Final = Path(pyflink.__file__).parent / "bin"
_LOOPBACK: Final = "127.0.0.1"


class SessionCluster:
    """A job manager, and task managers that are started and killed.

    Args:
        folder: of its settings and logs; new.
        slots: of a task manager.
    """

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder, self._slots = folder, slots
        self._rpc, self._rest = free_port(), free_port()
        (folder / "log").mkdir(parents=True)
        (folder / "conf").mkdir()
        for path in (_BIN.parent / "conf").iterdir():
            (folder / "conf" / path.name).write_bytes(path.read_bytes())
        self._processes: list[subprocess.Popen[bytes]] = []

    def start_job_manager(self) -> None:
        """Start it; it listens on loopback."""
        self._start("jobmanager.sh")

    def start_task_manager(self) -> "subprocess.Popen[bytes]":
        """Start one more."""
        return self._start(
            "taskmanager.sh",
            f"taskmanager.host={_LOOPBACK}",
            f"taskmanager.numberOfTaskSlots={self._slots}",
            "taskmanager.memory.process.size=1600m",
        )

    def submit(self, plan: Path) -> None:
        """Submit the job of a plan, as `submit` of infra/compose.yaml.

        Raises:
            DrillFailedError: it is not taken; with what Flink says.
        """
        done = subprocess.run(  # noqa: S603 - our own command
            [
                *(_BIN / "flink", "run", "-d", "-m", f"{_LOOPBACK}:{self._rest}"),
                *("-pyexec", sys.executable, "-pyclientexec", sys.executable),
                *("-py", attempt.__file__, plan),
            ],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            msg = f"flink run: {(done.stdout + done.stderr)[-1000:]}"
            raise DrillFailedError(msg)

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill -9 a task manager and its Python workers."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Kill all that runs of it."""
        for process in self._processes:
            self.kill(process)

    def _start(self, script: str, *settings: str) -> "subprocess.Popen[bytes]":
        common = (
            f"jobmanager.rpc.address={_LOOPBACK}",
            f"jobmanager.rpc.port={self._rpc}",
            f"rest.address={_LOOPBACK}",
            f"rest.port={self._rest}",
            f"rest.bind-address={_LOOPBACK}",
        )
        definitions = [word for item in (*common, *settings) for word in ("-D", item)]
        with (self._folder / "log" / f"{script}.out").open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - the scripts of the pip package
                [_BIN / script, "start-foreground", *definitions],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "JAVA_HOME": str(java_home()),
            "FLINK_CONF_DIR": str(self._folder / "conf"),
            "FLINK_LOG_DIR": str(self._folder / "log"),
            "OMP_NUM_THREADS": "1",
        }


@contextmanager
def session_cluster(folder: Path, slots: int) -> Iterator[SessionCluster]:
    """A cluster with a job manager; all of it is killed at the end."""
    cluster = SessionCluster(folder, slots)
    try:
        cluster.start_job_manager()
        yield cluster
    finally:
        cluster.stop()
