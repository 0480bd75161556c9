"""`docs/events.md`: its request is answered by a real service with the fields that it shows."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import USER_COUNT, Shop
from tests.system.test_readme import blocks
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.http.api import RankAnswer, request_models
from uic.pipelines.log.text_ids import TextIds

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_request_is_answered_with_the_fields_of_the_page(tmp_path: Path) -> None:
    [line] = blocks(PAGE, "sh")
    *_, shown = blocks(PAGE, "json")
    shop = Shop.open(tmp_path / "shop")
    try:
        shop.generation(1, shop.bundle("0001"), np.full(USER_COUNT, 43))
        with running_service(shop.workspace) as service:
            assert "http://127.0.0.1:8080" in line
            command = line.replace("http://127.0.0.1:8080", service.url)
            done = subprocess.run(
                command, shell=True, capture_output=True, text=True, check=True, timeout=60
            )
    finally:
        shop.stop()
    answer, expected = json.loads(done.stdout), json.loads(shown)
    assert list(answer) == list(expected)
    assert [list(one) for one in answer["items"]] == [list(one) for one in expected["items"]]
    for name in ("user_id", "generation", "bundle", "memory_events", "degraded", "reasons"):
        assert answer[name] == expected[name], name


def test_every_field_of_request_and_answer_is_on_the_page() -> None:
    rank, _ = request_models(ServeSettings(), TextIds())
    request, answer = PAGE.split("| field of the request |")[1].split("| field of the answer |")
    named = set(re.findall(r"`(\w+)`", request))
    assert set(rank.model_fields) <= named
    beside = {"user_id", "features"}  # the request's own, and what only `explain` adds
    assert set(RankAnswer.model_fields) - beside <= set(re.findall(r"`(\w+)`", answer))
