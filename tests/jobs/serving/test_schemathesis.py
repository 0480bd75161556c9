"""Requests made from the OpenAPI document while store and registry fail: no error of the service.

`UIC_SCHEMATHESIS_CASES=5000 pytest tests/jobs/serving/test_schemathesis.py` is the long form.
"""

import itertools
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.jobs.serving.running import RunningService, running_service
from tests.jobs.serving.shop import Shop
from uic.feature_repo.store.opened import open_memories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

CASES = int(os.environ.get("UIC_SCHEMATHESIS_CASES", "300"))
# What says by its status that the store is away: a load balancer's question, and one for memories.
MAY_BE_503 = ("/readyz", "/interests")


@pytest.fixture
def served(tmp_path: Path):
    shop = Shop.open(tmp_path)
    shop.generation(1, shop.bundle("0001"), [20] * 40)
    with running_service(shop.workspace, watch_seconds="0.2") as service:
        yield shop, service
    shop.stop()


def faults(shop: Shop) -> list[tuple[str, Callable[[], None]]]:
    """What fails beside the requests, and what mends it."""
    registry = shop.workspace / "feast.db"
    good = shop.workspace / "feast.good"
    shutil.copyfile(registry, good)

    def damage_values() -> None:
        with open_memories(shop.settings, shop.workspace) as store:
            for user in range(0, 40, 4):
                store.client.setrange(store.memories.keys.entities(1, [user])[0], 60, b"\xff" * 80)

    def damage_pointer() -> None:
        with open_memories(shop.settings, shop.workspace) as store:
            store.client.hset(store.memories.keys.live, "number", "one")

    def mend_pointer() -> None:
        with open_memories(shop.settings, shop.workspace) as store:
            store.client.hset(store.memories.keys.live, "number", 1)

    return [
        ("a damaged registry", lambda: registry.write_bytes(b"no registry" * 100)),
        ("an empty registry", lambda: registry.write_bytes(b"")),
        ("the registry again", lambda: shutil.copyfile(good, registry)),
        ("damaged memories", damage_values),
        ("a damaged live pointer", damage_pointer),
        ("the pointer again", mend_pointer),
        ("Redis killed", shop.server.kill),
        ("Redis again", shop.server.start),
    ]


def test_no_request_is_an_error_of_the_service_whatever_fails_beside_it(served):
    shop, service = served
    ended = threading.Event()
    done: list[str] = []
    failed: list[Exception] = []

    def break_things() -> None:
        for name, fault in itertools.cycle(faults(shop)):
            if ended.wait(0.4):
                break
            try:
                fault()
            except Exception as error:  # told by the test below
                failed.append(error)
                return
            done.append(name)
        shop.server.start()

    breaking = threading.Thread(target=break_things)
    breaking.start()
    try:
        seen = ask(service)
    finally:
        ended.set()
        breaking.join()
    assert not failed
    assert len(set(done)) >= 6
    assert sum(seen.values()) >= CASES, seen
    errors = {(path, status) for path, status in seen if status >= 500}
    assert {path for path, _ in errors if not path.endswith(MAY_BE_503)} == set()
    assert {status for _, status in errors} <= {503}
    assert {200, 422} <= {status for _, status in seen}
    # Each answer is counted, refusals too.
    for (path, status), count in seen.items():
        if path == "/v1/rank":
            line = f'uic_serve_requests_total{{path="{path}",status="{status}"}}'
            assert service.metric(line) == count
    assert service.process.poll() is None


def ask(service: RunningService) -> Counter[tuple[str, int]]:
    """Valid and invalid requests of every operation; answers by path and status."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    seen: Counter[tuple[str, int]] = Counter()
    for result in schema.get_all_operations():
        ask_one(result.ok(), service, seen)
    return seen


def ask_one(operation, service: RunningService, seen: Counter[tuple[str, int]]) -> None:
    """Operations without parameters have one request; a third of the cases for each other."""

    @settings(
        max_examples=CASES // 3 + 1,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(
        case=st.one_of(
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        )
    )
    def probe(case):
        answer = case.call(base_url=service.url)
        seen[operation.path, answer.status_code] += 1
        case.validate_response(answer, excluded_checks=unasked(operation.path))

    probe()


def unasked(path: str) -> list[CheckFunction]:
    """Of schemathesis' checks, those that an answer may fail for a reason.

    JSON Schema calls 5.0 an integer. It is refused: a float of an id may be of another id.
    """
    beside = [not_a_server_error] if path.endswith(MAY_BE_503) else []
    return [positive_data_acceptance, *beside]
