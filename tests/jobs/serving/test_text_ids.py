"""What a service takes and gives where the log was imported with text ids."""

import asyncio

import pytest
from pydantic import ValidationError

from tests.pipelines.test_text_ids import ODD, imported
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.ids_probe import IdKindsError, IdsProbe
from uic.jobs.serving.http.api import problem_of, request_models
from uic.jobs.serving.http.funnel import funnel_models
from uic.jobs.serving.http.ids import RequestIds
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import TextIds, number_of


def models(ids):
    return (*request_models(ServeSettings(), ids), *funnel_models(ServeSettings(), ids))


@pytest.mark.parametrize("texts", [(), ("user",), ("item",), ("user", "item")])
def test_the_examples_of_a_service_are_requests_that_it_takes(tmp_path, texts):
    user, item = ("u" if "user" in texts else "1"), ("i" if "item" in texts else "2")
    ids = TextIds.of(imported(tmp_path, f"{user},{item},3", texts=texts))
    for model in models(ids):
        model.model_validate(model.model_config["json_schema_extra"]["example"])


def test_a_log_of_texts_takes_texts_alone(tmp_path):
    rank, *_ = models(TextIds.of(imported(tmp_path, f"{ODD},{ODD},3")))
    assert rank(user_id=ODD, item_ids=["7", "007"]).item_ids == ["7", "007"]
    for user, said in ((17, "valid string (found 17)"), ("", "at least 1 character")):
        with pytest.raises(ValidationError) as refused:
            rank.model_validate({"user_id": user, "item_ids": [ODD]})
        assert said in problem_of(refused.value.errors()).detail
    with pytest.raises(ValidationError, match="unicode"):  # half of a pair is no text
        rank.model_validate({"user_id": "\ud800", "item_ids": [ODD]})


def test_an_answer_has_the_ids_of_its_request(tmp_path):
    ids = TextIds.of(imported(tmp_path, f"{ODD},{ODD},3"))
    asked = RequestIds.of(ids, ODD, ["b", ODD, "b"])
    assert (asked.user, asked.duplicates) == (number_of(ODD), 1)
    assert asked.distinct == [number_of("b"), number_of(ODD)]
    answer = {"user_id": asked.user, "items": [{"item_id": one} for one in asked.distinct[::-1]]}
    assert asked.told(answer) == {"user_id": ODD, "items": [{"item_id": ODD}, {"item_id": "b"}]}


def test_numbers_of_a_log_of_numbers_are_passed_on_as_they_are():
    items = [3, 2**60, 3]
    asked = RequestIds.of(TextIds(), 17, items)
    assert asked.items is items
    answer = {"user_id": 17, "items": [{"item_id": 2**60}, {"item_id": 3}]}
    assert asked.told(answer) == {"user_id": 17, "items": [{"item_id": 2**60}, {"item_id": 3}]}


def test_a_service_says_that_ids_became_texts_under_it(tmp_path):
    log = EventLog(tmp_path / "log")
    probe = IdsProbe(log, TextIds.of(log))
    assert asyncio.run(probe.look(None)) is None
    imported(tmp_path, "ann,x,3")
    for _ in range(2):
        with pytest.raises(IdKindsError, match=r"text ids of item, user; .* with none.* again"):
            asyncio.run(probe.look(None))
    probe = IdsProbe(log, TextIds.of(log))
    asyncio.run(probe.look(None))
    imported(tmp_path, "bob,x,3", name="more")
    asyncio.run(probe.look(None))
