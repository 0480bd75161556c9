"""Offers Flink's metrics, and the stream's lag, at `stream.prometheus_host` and `prometheus_port`.

Flink's reporter has no setting for its address, so it is on loopback like every server of its Java
process, and it knows nothing of partitions that no stream reads. This one answers for it: GET, one
page, Flink's and what the supervisor has written beside the attempt, no more.
"""

import contextlib
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.topics.kafka_server import free_port

LAG_FILE: Final = "lag.prom"
_SECONDS: Final = 10.0


def relays_metrics(stream: StreamSettings) -> bool:
    """Whether Prometheus asks for Flink's metrics at another address than loopback."""
    return bool(stream.prometheus_port) and stream.prometheus_host not in ("127.0.0.1", "localhost")


def meant_ports(stream: StreamSettings) -> set[int]:
    """Ports that a setting puts on another address than loopback."""
    return {stream.prometheus_port} if relays_metrics(stream) else set()


def metrics_port(stream: StreamSettings) -> int:
    """The port of Flink's own reporter, on loopback; 0 where no metrics are asked for."""
    return free_port() if stream.prometheus_port else 0


def relay_metrics(host: str, port: int, java_port: int, beside: Path) -> ThreadingHTTPServer:
    """Answer on `host:port`, in threads of this process, with what Flink's reporter says.

    Args:
        host: address to listen on.
        port: likewise; 0 takes a free one, which `server_port` of the result is.
        java_port: of the reporter, on loopback.
        beside: file of further metrics; it need not be there.

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
                with contextlib.suppress(FileNotFoundError):
                    page += b"\n" + beside.read_bytes()
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
