"""What processes listen on: address, port, and whose it is.

A library may open a server of its own, on every address of the machine. So the sockets are looked
at as the system knows them, not as settings say they should be.
"""

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import psutil

_INSIDE: Final = "between Flink, Beam and Python"


@dataclass(frozen=True, order=True)
class Listener:
    """A TCP socket that takes connections.

    Attributes:
        address: IP address that it is bound to; `::` and `0.0.0.0` are every address.
        port: TCP port.
        process: name of its process.
        pid: of its process.
    """

    address: str
    port: int
    process: str
    pid: int

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        """`address:port (process, pid)`."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port} ({self.process}, process {self.pid})"


def listeners(pid: int) -> list[Listener]:
    """What a process and all that it has started listen on, by address and port.

    Processes that have ended, or that this user may not look at, have none.
    """
    sockets = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                name = process.name()
                sockets += [
                    # An IPv4 address on an IPv6 socket, as Java binds it.
                    Listener(
                        socket.laddr.ip.removeprefix("::ffff:"),
                        socket.laddr.port,
                        name,
                        process.pid,
                    )
                    for socket in process.net_connections("tcp")
                    if socket.status == psutil.CONN_LISTEN
                ]
    return sorted(sockets)


class ListenerWatch:
    """Says once what a stream listens on, and warns of what the network reaches.

    Args:
        pid: of the attempt.
        names: by port, whose it is; other ports are inside the job.
        meant: ports that may be on another address than loopback, since a setting says so.
        say: takes a line for people.
    """

    def __init__(
        self, pid: int, names: Mapping[int, str], meant: set[int], say: Callable[[str], None]
    ) -> None:
        self._pid = pid
        self._names = names
        self._meant = meant
        self._say = say
        self._warned: set[str] = set()
        self._named = False

    def look(self, *, runs: bool) -> None:
        """Look at the attempt's sockets.

        Args:
            runs: whether all of the job runs, so that its sockets can be named.
        """
        sockets = listeners(self._pid)
        for text in exposed(sockets, self._meant):
            if text not in self._warned:
                self._warned.add(text)
                self._say(f"WARNING: {text}")
        if runs and not self._named:
            self._named = True
            self._say(f"listens on {described(sockets, self._names)}")


def exposed(sockets: list[Listener], meant: set[int]) -> list[str]:
    """What to say of each socket that should be on loopback and is not.

    Args:
        sockets: all of a process.
        meant: ports that may be on another address.
    """
    return [
        f"{socket} takes connections from the network, and asks for no password: close the port "
        "in the firewall, and report it"
        for socket in sockets
        if not socket.on_loopback and socket.port not in meant
    ]


def described(sockets: list[Listener], names: Mapping[int, str]) -> str:
    """One line for all sockets: those with a name each, the others as a number of ports."""
    parts = [
        f"{socket.address}:{socket.port} ({names[socket.port]})"
        for socket in sockets
        if socket.port in names
    ]
    inside = Counter(socket.address for socket in sockets if socket.port not in names)
    parts += [f"{count} ports of {address} ({_INSIDE})" for address, count in inside.items()]
    return ", ".join(parts) or "no port"
