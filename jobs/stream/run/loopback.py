"""Keeps the servers of an attempt's Java process on the loopback address.

Beam's servers, which hand files and settings to PyFlink's workers, ask for no password and bind
`new InetSocketAddress(port)`: every address of the machine, with no setting to say otherwise
(docs/adr/014-servers-on-loopback.md). Java looks "every address" up in one object, once. That is
given the loopback address, before the first server is made.
"""

from typing import Any, Final

from py4j.protocol import Py4JJavaError

from uic.models.errors import UicError

# What reflection needs; PyFlink's own configuration has it too, until someone brings another.
JAVA_OPTION: Final = "--add-opens=java.base/java.net=ALL-UNNAMED"


class OpenServersError(UicError):
    """This Java would let its servers listen on every address of the machine."""


def keep_servers_on_loopback(java: Any) -> None:
    """Let "every address" mean the loopback address in a Java process, from now on.

    Outgoing connections are not bound, so they go where they went.

    Args:
        java: py4j's view of the process (`get_gateway().jvm`), with no server but its own so far.

    Raises:
        OpenServersError: this Java keeps its addresses elsewhere; nothing listens yet.
    """
    try:
        resolver = _opened(java.Class.forName("java.net.InetAddress"), "impl").get(None)
        every_address = _opened(resolver.getClass(), "anyLocalAddress")
        every_address.set(resolver, java.java.net.InetAddress.getLoopbackAddress())
        bound = java.java.net.InetSocketAddress(0).getAddress()
        if bound.isLoopbackAddress():
            return
        reason = f"{bound.getHostAddress()} it stays"
    except Py4JJavaError as error:  # not of a connection that is lost: the next attempt may work
        reason = str(error.java_exception.toString())
    version = java.System.getProperty("java.version")
    msg = (
        f"Java {version}: cannot keep Flink's servers on the loopback address ({reason}); anyone "
        "on the network could read this machine's files through them; set JAVA_HOME to a Java 17"
    )
    raise OpenServersError(msg)


def _opened(of_class: Any, name: str) -> Any:
    field = of_class.getDeclaredField(name)
    field.setAccessible(True)
    return field
