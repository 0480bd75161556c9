"""What listens beyond this machine: sockets of our own processes, and of what they start."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil

from uic.jobs.stream.run.supervisor import running


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket."""

    address: str
    port: int
    pid: int
    program: str

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it, as far as the socket is concerned."""
        return not ip_address(self.address.removeprefix("::ffff:")).is_loopback


def listeners(pid: int) -> list[Listener]:
    """The listening sockets of a process and of all that it has started, by port."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    found = []
    for process in processes:
        try:
            program = process.name()
            sockets = process.net_connections(kind="tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found += [
            Listener(socket.laddr.ip, socket.laddr.port, process.pid, program)
            for socket in sockets
            if socket.status == psutil.CONN_LISTEN
        ]
    return sorted(found, key=lambda listener: (listener.port, listener.pid))


def stream_listeners(workspace: Path) -> list[Listener]:
    """The listening sockets of the attempts that stream from a workspace now."""
    documents = [running(folder) for folder in (workspace / "stream").glob("generation=*")]
    return [
        listener
        for document in documents
        if document
        for listener in listeners(document["attempt_pid"])
    ]
