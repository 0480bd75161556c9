"""The few calls of Flink's REST interface that supervision needs."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from uic.models.errors import UicError

_TIMEOUT_SECONDS: Final = 5.0
SAVEPOINT_SECONDS: Final = 120.0


class FlinkError(UicError):
    """Flink does not answer, or refused a request."""


@dataclass(frozen=True)
class FlinkRest:
    """One job behind one REST endpoint."""

    port: int
    job: str

    def state(self) -> str:
        """Of the job: RUNNING, FINISHED, FAILED and others."""
        return str(self._get(f"/jobs/{self.job}")["state"])

    def task_managers(self) -> int:
        """Task managers that the cluster has."""
        return len(self._get("/taskmanagers")["taskmanagers"])

    def completed_checkpoints(self) -> int:
        """Checkpoints that this job has completed."""
        return int(self._get(f"/jobs/{self.job}/checkpoints")["counts"]["completed"])

    def failures(self) -> str:
        """The text of the job's newest exceptions; empty if there were none."""
        history = self._get(f"/jobs/{self.job}/exceptions")["exceptionHistory"]["entries"]
        return "\n".join(str(entry.get("stacktrace", "")) for entry in history)

    def stop_with_savepoint(self) -> str:
        """Stop the job after a savepoint and return where that is.

        Raises:
            FlinkError: it was not done in time, or Flink refused.
        """
        trigger = self._post(f"/jobs/{self.job}/stop", {"drain": False})["request-id"]
        until = time.monotonic() + SAVEPOINT_SECONDS
        while time.monotonic() < until:
            answer = self._get(f"/jobs/{self.job}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                operation = answer["operation"]
                if "location" in operation:
                    return str(operation["location"])
                msg = f"no savepoint: {str(operation.get('failure-cause'))[:300]}"
                raise FlinkError(msg)
            time.sleep(0.2)
        msg = f"no savepoint within {SAVEPOINT_SECONDS:.0f} s; the job goes on"
        raise FlinkError(msg)

    def _get(self, path: str) -> Any:
        return self._call(urllib.request.Request(self._url(path)))  # noqa: S310 - loopback

    def _post(self, path: str, document: object) -> Any:
        return self._call(
            urllib.request.Request(  # noqa: S310
                self._url(path),
                data=json.dumps(document).encode(),
                headers={"Content-Type": "application/json"},
            )
        )

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _call(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError) as error:
            msg = f"{request.full_url}: Flink does not answer ({error})"
            raise FlinkError(msg) from error
