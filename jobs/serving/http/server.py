"""Running the service: one process, or several that share the port."""

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from uic.jobs.config.console import ERR
from uic.jobs.config.context import Context, open_context
from uic.jobs.serving.read.metrics import (
    FOLDER_VARIABLES,
    forget_metrics,
    metrics_of_process,
    share_metrics,
)
from uic.models.errors import BadInputError, UicError

_VARIABLE: Final = "UIC_SERVING_WORKER"
_BACKLOG: Final = 2048
_ASK_SECONDS: Final = 5.0
_ASK_AGAIN_SECONDS: Final = 0.2
STARTUP_FAILURE: Final = 3  # uvicorn's: a worker with this status is not started again


@dataclass(frozen=True)
class ServeRequest:
    """What a worker needs to open itself.

    Args:
        workspace: folder.
        config: settings file, None for the usual places.
        bundle: `model`, `model/version`, or a path.
        history_from: `store` serves memories; `log` computes interest from stored events instead.
        prerank_bundle: adds the pre-rank, `prerank`, `prerank/version` or a path; empty for none.
    """

    workspace: str
    config: str | None
    bundle: str
    history_from: str = "store"
    prerank_bundle: str = ""

    def open_context(self) -> Context:
        """Workspace and settings."""
        return open_context(
            Path(self.workspace), None if self.config is None else Path(self.config)
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        BadInputError: the address is not ours or is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family=family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        msg = f"--host {host} --port {port}: cannot listen there ({error.strerror or error})"
        raise BadInputError(msg) from error
    listener.set_inheritable(True)
    return listener


def serve(
    request: ServeRequest,
    listener: socket.socket,
    workers: int,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        request: what to serve.
        listener: of `listen`.
        workers: processes.
        ready: called once, in a thread, when the first worker answers.

    Raises:
        UicError: the service cannot be opened.
    """
    # uvicorn ends by raising again the signal that stopped it: that must not skip `finally`.
    signal.signal(signal.SIGTERM, _leave)
    folder = share_metrics()
    if ready is not None:
        address = listener.getsockname()[:2]
        threading.Thread(target=_tell_when_ready, args=(*address, ready), daemon=True).start()
    try:
        if workers == 1:
            _serve_here(request, listener)
        else:
            _serve_in_workers(request, listener, workers)
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
        forget_metrics(folder)


def _tell_when_ready(host: str, port: int, ready: Callable[[], None]) -> None:
    """Ask our own address until it says that it ranks; ends with the process if it never does."""
    while True:
        connection = http.client.HTTPConnection(host, port, timeout=_ASK_SECONDS)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                break
        connection.close()
        time.sleep(_ASK_AGAIN_SECONDS)
    connection.close()
    ready()


def _leave(_number: int, _frame: Any) -> None:
    raise SystemExit(0)


def worker_app() -> Any:
    """The application of one of several workers; uvicorn calls it in each."""
    request = ServeRequest(**json.loads(os.environ[_VARIABLE]))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    assert all(name in os.environ for name in FOLDER_VARIABLES)  # noqa: S101 - the parent set them
    try:
        return _application(request)
    except UicError as error:
        ERR.print(f"[bold red]error:[/] {escape(' '.join(str(error).split()))}")
        sys.exit(STARTUP_FAILURE)


def _count_refusal(status: int) -> None:
    metrics_of_process().requests.labels("other", status).inc()


def _end_with_parent(parent: int) -> None:
    """Workers of a parent that was killed would keep its port, and follow no signal to end."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _application(request: ServeRequest) -> Any:
    from uic.jobs.serving.http.app import create_app  # noqa: PLC0415 - after `share_metrics`
    from uic.jobs.serving.http.service import Service  # noqa: PLC0415

    service = Service.open(
        request.open_context(),
        request.bundle,
        metrics_of_process(),
        history_from=request.history_from,
        prerank_bundle=request.prerank_bundle,
    )
    return create_app(service)


def _serve_here(request: ServeRequest, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - only a service needs it

    application = _application(request)
    uvicorn.Server(uvicorn.Config(application, **_options(request))).run(sockets=[listener])


def _serve_in_workers(request: ServeRequest, listener: socket.socket, workers: int) -> None:
    import uvicorn  # noqa: PLC0415
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415

    os.environ[_VARIABLE] = json.dumps(asdict(request))
    config = uvicorn.Config(
        "uic.jobs.serving.http.server:worker_app",
        factory=True,
        workers=workers,
        **_options(request),
    )
    parent = Multiprocess(config, sockets=[listener])
    parent.run()
    # A worker that cannot open the service has said why; the others would fail the same way.
    if any(process.exitcode == STARTUP_FAILURE for process in parent.processes):
        raise SystemExit(UicError.exit_code)


def _options(request: ServeRequest) -> dict[str, Any]:
    from uic.jobs.serving.http.guarded import Bounds, GuardedProtocol  # noqa: PLC0415 - uvicorn

    settings = request.open_context().config.serve
    bounds = Bounds(
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        head_bytes=settings.max_head_bytes,
        connections=settings.max_connections,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return {
        "loop": "uvloop",
        # Workers get it pickled.
        "http": partial(GuardedProtocol, bounds=bounds, refused=_count_refusal),
        "ws": "none",
        "access_log": False,
        "log_level": "warning",
        "backlog": _BACKLOG,
        "server_header": False,
        "lifespan": "on",
        # A worker that loads libraries on a busy machine does not answer its parent for seconds.
        "timeout_worker_healthcheck": 30,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": int(settings.request_timeout_ms / 1000) + 10,
    }
