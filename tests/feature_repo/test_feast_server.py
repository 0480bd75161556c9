"""Feast's feature server over the packed layout."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import redis
from feast import FeatureStore

from tests.feature_repo.feast_rows import frame, live_generation, memories
from uic.feature_repo.plugin.repository import REPOSITORY
from uic.feature_repo.store.settings import StoreSettings

pytestmark = pytest.mark.slow


def test_the_feature_server_serves_the_same_bytes(
    feast: FeatureStore, settings: StoreSettings, redis_server: redis.Redis, workspace: Path
) -> None:
    """`feast serve` in a process of its own, on the repository as it lies in the project."""
    import base64

    live_generation(redis_server)
    records = memories()
    feast.write_to_online_store("user_interest", frame(records))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    repository = workspace / "repository"
    repository.mkdir()
    shutil.copy(REPOSITORY / "feature_store.yaml", repository)
    environment = os.environ | {
        "UIC_STORE__ADDRESS": str(settings.address),
        "FEAST_USAGE": "False",
    }
    command = [str(Path(sys.executable).parent / "feast"), "serve", "-h", "127.0.0.1"]
    with (workspace / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "-p", str(port), "--no-access-log"],
            cwd=repository,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, server, workspace / "serve.log")
        answer = httpx.post(
            f"{url}/get-online-features",
            json={"features": ["user_interest:memory"], "entities": {"user_id": [1, 99]}},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        document = answer.json()
        at = document["metadata"]["feature_names"].index("memory")
        values = document["results"][at]["values"]
        assert base64.b64decode(values[0]) == records[0].tobytes()
        assert values[1] is None
        assert document["results"][at]["statuses"] == ["PRESENT", "NOT_FOUND"]
        decoded = httpx.post(
            f"{url}/get-online-features",
            json={"feature_service": "interest_v1", "entities": {"user_id": [1]}},
            timeout=30,
        ).json()
        at = decoded["metadata"]["feature_names"].index("offset")
        assert decoded["results"][at]["values"] == [1]
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    # Importing Feast takes ten seconds of an idle machine, and minutes of a busy one.
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    pytest.fail(f"the feature server did not answer: {log.read_text()}")
