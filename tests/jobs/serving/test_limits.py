"""Limits, token, workers, drain, feature log, and what `uic serve` refuses to start with."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from benchmarks.load.generator import LoadPlan
from tests.jobs.serving.running import ROOT, Load, running_service
from tests.jobs.serving.shop import Shop
from uic.jobs.config.context import open_context
from uic.jobs.serving.http.reloading import ReloadError, reload_service
from uic.jobs.serving.http.server import listen
from uic.jobs.serving.http.service import Service
from uic.jobs.stream.run.listeners import listeners
from uic.models.errors import BadInputError, UicError

pytestmark = pytest.mark.slow

ITEMS = list(range(1000, 1200))
BODY = json.dumps({"user_id": 3, "item_ids": ITEMS}).encode()
TOKEN = "a secret"


@pytest.fixture
def small_shop(shop: Shop) -> Shop:
    bundle = shop.bundle("0001")
    shop.generation(1, bundle, [20] * 5)
    return shop


def test_two_workers_with_a_token_reload_together_log_features_and_drain(small_shop: Shop):
    shop = small_shop
    with running_service(
        shop.workspace, "--workers", "2", token=TOKEN, log_features="true"
    ) as service:
        # A token for everything but what a load balancer asks.
        for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": TOKEN}):
            with httpx.Client(base_url=service.url, headers=wrong) as stranger:
                assert stranger.post("/v1/rank", content=BODY).status_code == 401
                assert stranger.get("/metrics").status_code == 401
                assert stranger.get("/readyz").status_code == 200
        # Both workers answer, and each shows the metrics of both.
        # At once: one after the other, the worker that is warm may take them all.
        workers = set()
        deadline = time.monotonic() + 60
        with ThreadPoolExecutor(16) as pool:
            while len(workers) < 2 and time.monotonic() < deadline:
                answers = pool.map(httpx.get, [f"{service.url}/readyz"] * 64)
                workers |= {answer.json()["worker"] for answer in answers}
        assert len(workers) == 2
        # One port for both, and no other, of whatever library.
        sockets = {(one.address, one.port) for one in listeners(service.process.pid)}
        assert sockets == {("127.0.0.1", httpx.URL(service.url).port)}
        assert service.metric('uic_serve_bundle_workers{bundle="mimn/0001"}') == 2
        answer = service.rank(3, ITEMS, context={"page": "home"})
        # A new current bundle, by the command.
        compatible = (bytes.fromhex(answer["memory_bundle"]),)
        shop.bundle("0002", seed=2, compatible=compatible, current=False)
        label = reload_service(
            shop.workspace / "bundles", "mimn/0002", service.url, TOKEN, wait_seconds=60
        )
        assert label == "mimn/0002"
        service.wait_until(
            lambda: service.metric('uic_serve_bundle_workers{bundle="mimn/0002"}') == 2
        )
        assert service.rank(3, ITEMS)["bundle"] == "mimn/0002"
        # SIGTERM under load: what was sent is answered, then the port is closed.
        plan = LoadPlan(service.url, [BODY], rate=20, seconds=1.2, token=TOKEN)
        going = Load(plan)
        with going.running():
            time.sleep(0.6)
            service.process.send_signal(signal.SIGTERM)
        statuses = [status for _, status, _ in going.answers]
        assert statuses.count(200) >= 12
        assert set(statuses) <= {200, 0}  # 0: sent after the port was closed
        first_refused = statuses.index(0) if 0 in statuses else len(statuses)
        assert 200 not in statuses[first_refused + 5 :]
        assert service.process.wait(90) == 0
    files = list((shop.workspace / "serving" / "features").rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    logged = next(row for row in rows if row["context"])
    assert json.loads(logged["context"]) == {"page": "home"}
    assert (logged["user_id"], logged["bundle"], logged["generation"]) == (3, "mimn/0001", 1)
    served = {item["item_id"]: item["probability"] for item in answer["items"]}
    written = dict(zip(logged["item_ids"], logged["probabilities"], strict=True))
    assert written == pytest.approx(served, abs=1e-6)
    assert logged["memory"][:2] == b"UM"


def test_workers_end_with_a_parent_that_was_killed(small_shop: Shop):
    with running_service(small_shop.workspace, "--workers", "2") as service:
        workers = psutil.Process(service.process.pid).children(recursive=True)
        assert len(workers) >= 2
        service.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=90)
        assert not alive


def test_more_requests_than_the_bound_are_told_to_come_again(small_shop: Shop):
    with running_service(small_shop.workspace, max_in_flight="1") as service:
        plan = LoadPlan(service.url, [BODY], rate=600, seconds=0.5)
        going = Load(plan)
        with going.running():
            pass
        statuses = [status for _, status, _ in going.answers]
        assert set(statuses) == {200, 429}
        refused = next(body for _, status, body in going.answers if status == 429)
        assert "in flight" in json.loads(refused)["detail"]
        # Health is asked for and answered all the same; a lone request is served again.
        assert service.rank(3, ITEMS)["degraded"] is False


@pytest.mark.parametrize(
    ("bundle", "service_name", "expected"),
    [
        ("mimn/0007", "ranker_v1", "no bundle 'mimn/0007'; there is: din/0001, mimn/0001"),
        ("din/0001", "ranker_v1", "model din keeps no memory"),
        ("mimn", "ranker_v9", "feature service 'ranker_v9'"),
        ("mimn", "interest_v1", "made for another feature service"),
    ],
)
def test_what_cannot_be_served_is_refused(
    small_shop: Shop, monkeypatch, bundle: str, service_name: str, expected: str
):
    small_shop.bundle("0001", model="din")
    monkeypatch.setenv("UIC_SERVE__FEATURE_SERVICE", service_name)
    monkeypatch.setenv("UIC_WORKSPACE", "")  # restored afterwards: opening sets it
    with pytest.raises(UicError, match=expected) as caught:
        Service.open(open_context(small_shop.workspace, None), bundle, metrics=None)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_that_cannot_start_says_so_in_one_line_and_ends_with_2(
    small_shop: Shop, workers: str
):
    command = ["serve", "--port", "0", "--bundle", "mimn/0007", "--workers", workers]
    done = subprocess.run(
        [sys.executable, "-m", "uic", *command, "--workspace", str(small_shop.workspace)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "no bundle 'mimn/0007'" in lines[0]
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_ours_is_refused():
    with pytest.raises(BadInputError, match=r"--host 203.0.113.9 --port 80: cannot listen there"):
        listen("203.0.113.9", 80)


def test_reload_says_when_nobody_serves(small_shop: Shop):
    with pytest.raises(ReloadError, match="no ranking service answers"):
        reload_service(small_shop.workspace / "bundles", None, "http://127.0.0.1:9", None, 1)
