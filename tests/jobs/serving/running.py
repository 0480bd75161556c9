"""The service as a user runs it: `uic serve` in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load.generator import LoadPlan, LoadResult, run_load

ROOT = Path(__file__).parents[3]
START_SECONDS = 400
# A machine that runs other tests too must not look like a store that is away.
PATIENT = {"UIC_SERVE__STORE_TIMEOUT_MS": "5000", "UIC_SERVE__REQUEST_TIMEOUT_MS": "20000"}


@dataclass
class RunningService:
    """A service that answers."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    client: httpx.Client = field(repr=False)

    def rank(self, user_id: int, item_ids: list[int], **rest: Any) -> dict[str, Any]:
        answer = self.client.post(
            "/v1/rank", json={"user_id": user_id, "item_ids": item_ids, **rest}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def probabilities(self, user_id: int, item_ids: list[int]) -> dict[int, float]:
        answer = self.rank(user_id, item_ids)
        return {item["item_id"]: item["probability"] for item in answer["items"]}

    def ready(self) -> dict[str, Any]:
        return self.client.get("/readyz").json()

    def metric(self, line: str) -> float:
        """The value of one line of /metrics, 0 if it is not there."""
        for text in self.client.get("/metrics").text.splitlines():
            if text.startswith(line + " "):
                return float(text.split()[-1])
        return 0.0

    def wait_until(self, condition, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def running_service(
    workspace: Path, *arguments: str, token: str | None = None, **settings: str
) -> Iterator[RunningService]:
    """`uic serve` on a free port; `settings` are UIC_SERVE__ variables."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "UIC_STORE__POINTER_REFRESH_SECONDS": "0.1",
        "UIC_SERVE__WATCH_SECONDS": "0.1",
        "UIC_SERVE__SWAP_DELAY_SECONDS": "0.5",
        "UIC_SERVE__DRAIN_SECONDS": "0.3",
        **PATIENT,
        **{f"UIC_SERVE__{name.upper()}": value for name, value in settings.items()},
    }
    if token is not None:
        environment["UIC_SERVE__TOKEN"] = token
    log = workspace / "service.log"
    command = [sys.executable, "-m", "uic", "serve", "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *arguments, "--workspace", str(workspace)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert "http://" in first, log.read_text()
        url = first.split()[-1]
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            service = RunningService(process, url, log, client)
            _wait_for_answer(service)
            yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait(10)
        process.stdout.close()


def _wait_for_answer(service: RunningService) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert service.process.poll() is None, service.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if service.client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(service.log.read_text())


@dataclass
class Load:
    """Requests that go on in a thread while a test does something to the service."""

    plan: LoadPlan
    answers: list[tuple[float, int, bytes]] = field(default_factory=list)
    result: LoadResult | None = None

    @contextmanager
    def running(self) -> Iterator["Load"]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            thread.join()

    def _run(self) -> None:
        self.result = run_load(self.plan, self._note)

    def _note(self, number: int, status: int, body: bytes) -> None:
        self.answers.append((time.monotonic(), status, body))

    def bodies(self) -> list[dict[str, Any]]:
        """Parsed answers in the order in which they came."""
        return [json.loads(body) for _, status, body in self.answers if status == 200]
