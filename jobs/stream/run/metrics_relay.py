"""Offers Flink's metrics on the address that `stream.prometheus_host` names.

Flink's reporter has no setting for its address, so it is on loopback like every server of its Java
process. Where Prometheus is on another machine, this one answers for it: GET, one page, no more.
"""

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.topics.kafka_server import free_port

_SECONDS: Final = 10.0


def relays_metrics(stream: StreamSettings) -> bool:
    """Whether Prometheus asks for Flink's metrics at another address than loopback."""
    return bool(stream.prometheus_port) and stream.prometheus_host not in ("127.0.0.1", "localhost")


def meant_ports(stream: StreamSettings) -> set[int]:
    """Ports that a setting puts on another address than loopback."""
    return {stream.prometheus_port} if relays_metrics(stream) else set()


def metrics_port(stream: StreamSettings) -> int:
    """The port of Flink's own reporter, on loopback: that of the settings unless we relay it."""
    return free_port() if relays_metrics(stream) else stream.prometheus_port


def relay_metrics(host: str, port: int, java_port: int) -> ThreadingHTTPServer:
    """Answer on `host:port`, in threads of this process, with what Flink's reporter says.

    Args:
        host: address to listen on.
        port: likewise; 0 takes a free one, which `server_port` of the result is.
        java_port: of the reporter, on loopback.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """

    class Relay(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            try:
                # A fixed page, whatever was asked for.
                url = f"http://127.0.0.1:{java_port}/metrics"
                with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                    page, kind = answer.read(), answer.headers["Content-Type"]
            except OSError:
                self.send_error(503, "Flink's metrics do not answer (yet)")
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Say nothing: a line every few seconds, for ever."""

    server = ThreadingHTTPServer((host, port), Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
