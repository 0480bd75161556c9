"""A3, A4, A7 and A16: what the ranking service does with damage around it, and with its clients."""

import http
import json
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from uic.feature_repo.store.layout import NO_GENERATION, ViewKeys
from uic.jobs.drills.hostile.asking import (
    PATIENCE_SECONDS,
    ask,
    faulty_service,
    metric,
    wait_until,
)
from uic.jobs.drills.hostile.bundle_damage import set_weight
from uic.jobs.drills.hostile.row import HostileRow, RowControl, require
from uic.jobs.drills.hostile.stage import HostileStage, Served
from uic.jobs.drills.hostile.target import MODEL, AttackTarget
from uic.jobs.serving.read.reasons import DegradedReason
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import UicError
from uic.models.records.record import state_view

_FAILED_LOOKS: Final = 'uic_serve_look_failures_total{{probe="{probe}",stage="rank"}}'
_SLOW_CLIENTS: Final = 30
_ANSWER_SECONDS: Final = 5.0
_HEAD_PART: Final = 100_000
_HEAD_BYTES: Final = 20_000_000


def _follows(served: Served, seconds: float = PATIENCE_SECONDS) -> str:
    """A3: a damaged bundle becomes current, then a good one."""
    target, url = served.target, served.url
    damaged = target.bundle(current=False)
    manifest = target.shelf.path(MODEL, damaged) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"files"', '"fails"'))
    line = _FAILED_LOOKS.format(probe="bundle")
    target.shelf.choose(MODEL, damaged)
    try:
        wait_until(lambda: metric(url, line) > 0, seconds, f"{damaged}, damaged: a counted failure")
        failed = metric(url, line)
        status, _ = ask(url, "/v1/rank", _rank(target, 0))
        require(status == http.HTTPStatus.OK, f"a ranking beside {damaged}, damaged: {status}")
    finally:
        good = target.bundle()
    label = f"{MODEL}/{good}"
    took = wait_until(
        lambda: ask(url, "/readyz")[1]["bundle"] == label, seconds, f"{label}, good: served"
    )
    return (
        f"{damaged}, damaged: {failed:.0f} looks counted; {good}, good, is served {took:.1f} s on"
    )


def _rank(target: AttackTarget, place: int) -> dict[str, Any]:
    return {"user_id": target.users[place], "item_ids": list(target.items[:3])}


def _asked_together(url: str, target: AttackTarget, damaged: int, reason: DegradedReason) -> str:
    """Three users in one round, one of them damaged: that one alone has a reason."""
    requests = [_rank(target, place) for place in range(3)]
    status, document = ask(url, "/v1/rank:batch", {"requests": requests})
    require(status == http.HTTPStatus.OK, f"three users in one request: status {status}")
    answers = document["answers"]
    for place, answer in enumerate(answers):
        wanted = [str(reason)] if place == damaged else []
        require(answer["reasons"] == wanted, f"reasons {answer['reasons']}, expected {wanted}")
        numbers = [item["probability"] for item in answer["items"]]
        require(
            all(number is not None and math.isfinite(number) for number in numbers),
            f"probabilities {numbers}",
        )
    return f"{reason} for that user, none for the others of the round"


@contextmanager
def _kept(target: AttackTarget, place: int) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """A user's memory to be damaged; it is put back at the end."""
    user = target.users[place]
    record = target.memory(user)
    assert record is not None  # noqa: S101 - of the snapshot
    try:
        yield record.copy()
    finally:
        target.put(user, record.tobytes())


def _answers(served: Served, seconds: float = PATIENCE_SECONDS) -> str:
    """A4: a damaged registry, a cut memory, a cut history."""
    target, url = served.target, served.url
    with _kept(target, 1) as record:
        target.put(target.users[1], record.tobytes()[:-7])
        cut = _asked_together(url, target, 1, DegradedReason.UNKNOWN_BUNDLE)
    (registry,) = target.path.rglob("feast.db")
    good = registry.read_bytes()
    registry.write_bytes(b"garbage")
    try:
        line = _FAILED_LOOKS.format(probe="registry")
        wait_until(lambda: metric(url, line) > 0, seconds, "a damaged registry: a counted failure")
        status, _ = ask(url, "/v1/rank", _rank(target, 0))
        require(status == http.HTTPStatus.OK, f"a ranking beside a damaged registry: {status}")
    finally:
        registry.write_bytes(good)
    counted = metric(url, 'uic_serve_degraded_total{reason="unknown_bundle"}')
    require(counted > 0, "a degraded answer was not counted")
    _, text = ask(url, "/metrics")
    errors = [part for part in str(text).splitlines() if 'status="5' in part]
    require(not errors, f"counted answers: {errors}")
    return (
        f"a cut memory: {cut}; registry damaged: 200, looks counted; {_cut_history(target)}; no 5xx"
    )


def _cut_history(target: AttackTarget) -> str:
    """A damaged history of one user, ranked as `--history-from log` does."""
    target.workspace.store.fill_sequences()
    keys = ViewKeys.of_sequences(target.workspace.config.store.project)
    users = target.users[:2]
    with target.store() as store:
        key = keys.entities(NO_GENERATION, [users[1]])[0]
        whole = store.client.get(key)
        assert isinstance(whole, bytes)  # noqa: S101 - filled above
        store.client.set(key, whole[:-5])
    found = [
        target.workspace.rank(
            user, target.items[:3], bundle="sum_pooling", history_from="log"
        ).reasons
        for user in users
    ]
    target.workspace.close()
    require(not found[0] and found[1], f"reasons beside a cut history: {found}")
    return f"a cut history: {', '.join(found[1])}"


def _holds_up(served: Served) -> str:
    """A7: bodies that never end, connections that say nothing, heads of megabytes."""
    target, url = served.target, served.url
    parts = urlsplit(url)
    where = (str(parts.hostname), int(parts.port or 80))
    body = json.dumps(_rank(target, 0)).encode()
    head = b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with ExitStack() as stack:
        slow, idle = (
            [
                stack.enter_context(socket.create_connection(where, timeout=PATIENCE_SECONDS))
                for _ in range(_SLOW_CLIENTS)
            ]
            for _ in range(2)
        )
        for connection in slow:
            connection.sendall(head + b"content-length: 1000\r\n\r\n" + body[:1])
        began = time.monotonic()
        for _ in range(5):
            status, _ = ask(url, "/v1/rank", _rank(target, 0), _ANSWER_SECONDS)
            require(status == http.HTTPStatus.OK, f"a ranking beside slow clients: {status}")
        meanwhile = (time.monotonic() - began) / 5
        firsts = {_end_of(connection).split(b"\r\n")[0] for connection in slow}
        require(firsts == {b"HTTP/1.1 408 Request Timeout"}, f"bodies without an end: {firsts}")
        for connection in idle:
            _end_of(connection)
        closed = time.monotonic() - began
        sent = _endless_head(where)
        require(sent < _HEAD_BYTES, f"a head of {sent:,} bytes was taken")
        status, _ = ask(url, "/v1/rank", _rank(target, 0))
        require(status == http.HTTPStatus.OK, f"a ranking after a head of megabytes: {status}")
        for refused, least in ((408, _SLOW_CLIENTS), (431, 1)):
            line = f'uic_serve_requests_total{{path="other",status="{refused}"}}'
            counted = metric(url, line)
            require(counted >= least, f"refusals of status {refused} that are counted: {counted}")
    return (
        f"{_SLOW_CLIENTS} endless bodies: 408; others answered in {meanwhile * 1000:.0f} ms; "
        f"{_SLOW_CLIENTS} silent connections closed after {closed:.1f} s; a head was cut off at "
        f"{sent / 1e6:.1f} MB"
    )


def _end_of(connection: socket.socket) -> bytes:
    """All until the service closes the connection.

    Raises:
        NotHeldError: it does not, for half a minute.
    """
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        return received
    except TimeoutError:
        require(held=False, seen=f"a connection is held open for {PATIENCE_SECONDS:.0f} s")
    return received


def _endless_head(where: tuple[str, int]) -> int:
    """Bytes of a head that a service takes before it closes."""
    sent = 0
    with (
        socket.create_connection(where, timeout=PATIENCE_SECONDS) as connection,
        suppress(OSError),
    ):
        while sent < 2 * _HEAD_BYTES:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * _HEAD_PART)
            sent += _HEAD_PART
    return sent


def _finite(served: Served) -> str:
    """A16: one number of a memory, and one of a bundle's weights, is NaN."""
    target, url = served.target, served.url
    with _kept(target, 1) as record:
        state_view(record)[0, :] = np.nan
        target.put(target.users[1], record.tobytes())
        seen = _asked_together(url, target, 1, DegradedReason.NOT_FINITE)
    path = target.shelf.path(MODEL, target.bundle(current=False))
    set_weight(path, math.nan)
    require(_is_refused(path), f"{path.name}: weights that are NaN were loaded")
    return f"a memory of NaN: {seen}; weights of NaN: refused"


def _is_refused(path: Path) -> bool:
    try:
        load_bundle(path)
    except UicError as error:
        return "not finite" in str(error)
    return False


def _against(check: Callable[..., str], status: int, **options: float) -> RowControl:
    """The same check against a service that has the faults."""

    def control(stage: HostileStage) -> None:
        with faulty_service(status) as url:
            check(Served(stage.served.target, url), **options)

    return control


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A3",
        "a damaged bundle becomes the current one of a running service, then a good one",
        "the damaged one is counted and not served, the good one is",
        lambda stage: _follows(stage.served),
        _against(_follows, http.HTTPStatus.OK, seconds=1.0),
    ),
    HostileRow(
        "A4",
        "registry overwritten with garbage; a memory and a stored history cut short",
        "status 200 with a reason for that user alone, counted; never a 5xx",
        lambda stage: _answers(stage.served),
        _against(_answers, http.HTTPStatus.INTERNAL_SERVER_ERROR),
    ),
    HostileRow(
        "A7",
        "bodies that never end, connections that say nothing, a head of megabytes",
        "others are answered meanwhile; each is refused or closed in time",
        lambda stage: _holds_up(stage.served),
        _against(_holds_up, http.HTTPStatus.OK),
    ),
    HostileRow(
        "A16",
        "one memory and one bundle hold NaN",
        "a reason for that user alone and finite probabilities; the bundle is refused",
        lambda stage: _finite(stage.served),
        _against(_finite, http.HTTPStatus.OK),
    ),
)
