"""`Workspace.rank`: the service's answers, without the service."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.jobs.serving.running import PATIENT, ROOT, running_service
from tests.jobs.serving.shop import FIRST_ITEM, ITEM_COUNT, USER_COUNT, Shop

LENGTHS = np.random.default_rng(3).integers(1, 120, USER_COUNT)
ITEMS = list(range(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT))
UNKNOWN = 10**9
# In a process of its own: Prometheus has one of each metric in a process.
SCRIPT = """
import json, sys
from datetime import datetime

import uic

workspace = uic.Workspace(sys.argv[1])
for asked in json.loads(sys.argv[2]):
    if "moment" in asked:
        asked["moment"] = datetime.fromisoformat(asked["moment"])
    print(workspace.rank(**asked).model_dump_json(exclude_none=True))
workspace.close()
workspace.rank(1, [1])  # opened again
try:
    workspace.rank(1, [1], moment=datetime(2025, 3, 1))
except uic.UicError as error:
    assert "expected a time with its zone" in str(error)
else:
    raise AssertionError
workspace.close()
"""


def ranked_here(workspace, asks):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(workspace), json.dumps(asks)],
        cwd=ROOT,
        env={**os.environ, **PATIENT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_age(answer):
    """An answer of the service or of `rank`: memories grow older between the two."""
    return {
        name: value
        for name, value in answer.items()
        if name != "memory_age_seconds" and value is not None
    }


@pytest.mark.slow
def test_the_answers_are_those_of_the_service(shop: Shop):
    bundle = shop.bundle("0001")
    shop.generation(1, bundle, LENGTHS)
    asks = [
        {"user": 3, "items": ITEMS, "k": 5},
        {"user": 4, "items": [*ITEMS[:7], ITEMS[0], UNKNOWN], "explain": True},
        {"user": UNKNOWN, "items": ITEMS[:3]},
        {"user": 3, "items": ITEMS, "k": 5, "moment": "2030-01-01T00:00:00+00:00"},
    ]
    here = ranked_here(shop.workspace, asks)
    with running_service(shop.workspace) as service:
        there = []
        for asked in asks:
            rest = {name: asked[name] for name in ("k", "explain") if name in asked}
            if "moment" in asked:
                rest["moment_ms"] = 1_893_456_000_000
            there.append(service.rank(asked["user"], asked["items"], **rest))
    assert [without_age(answer) for answer in here] == [without_age(answer) for answer in there]
    assert [answer["reasons"] for answer in here] == [[], ["unknown_item"], ["unknown_user"], []]
    ages = [answer["memory_age_seconds"] for answer in (here[3], there[3])]
    assert ages[0] == ages[1] > 0  # as of the moment, not of now
