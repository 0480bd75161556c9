"""A bundle with labels beside the click: their probabilities, and the order by one of them."""

import asyncio

import numpy as np
import pytest
import torch

from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import FIRST_ITEM, Shop, categories_of, offline_logits, random_events
from uic.jobs.serving.http.funnel import funnel_answer
from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.rank.scorer import score_each
from uic.jobs.serving.score.asks import Ask, Scored
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.prerank import Preranked
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.memory.state import MemoryState
from uic.pipelines.log.event_log import EventLog

ITEMS = list(range(FIRST_ITEM, FIRST_ITEM + 40))
TASKS = {"buy": 2.0, "like": 1.0}


def chances(bundle, record) -> dict[str, np.ndarray]:
    """What the model says outside of the service, of the click and of each label."""
    state = MemoryState.unpack(record, bundle.memory.layout)
    vectors = bundle.embed(np.asarray(ITEMS), categories_of(ITEMS))
    with torch.no_grad():
        logits = bundle.model.readout_all(
            state, torch.zeros(len(ITEMS), dtype=torch.int64), vectors
        )
    columns = torch.sigmoid(logits.double()).numpy().T
    return dict(zip(["click", "buy", "like"], columns, strict=True))


@pytest.mark.slow
def test_an_answer_has_all_probabilities_and_is_ordered_by_any_of_them(shop: Shop):
    bundle = shop.bundle("0001", tasks=TASKS)
    record = shop.generation(1, bundle, [30, 5])[:1]
    expected = chances(bundle, record)
    best = {name: [ITEMS[at] for at in np.argsort(-own)] for name, own in expected.items()}
    assert best["click"] != best["buy"] != best["like"]
    with running_service(shop.workspace, order_by="like") as service:
        answer = service.rank(1, ITEMS, order_by="click")
        assert [item["item_id"] for item in answer["items"]] == best["click"]
        for item in answer["items"]:
            at = ITEMS.index(item["item_id"])
            assert item["probabilities"] == pytest.approx(
                {name: own[at] for name, own in expected.items()}, abs=1e-6
            )
            assert item["probability"] == item["probabilities"]["click"]
        for request, order in (({"order_by": "buy"}, "buy"), ({}, "like")):
            items = service.rank(1, ITEMS, **request)["items"]
            assert [item["item_id"] for item in items] == best[order]
        body = {"user_id": 1, "item_ids": ITEMS, "order_by": "sell"}
        refused = service.client.post("/v1/rank", json=body)
        assert refused.status_code == 422
        assert refused.json() == {
            "field": "order_by",
            "detail": "order_by: expected one of click, buy, like (found 'sell')",
        }
        # A bundle without the setting's task ranks by the click, and says so.
        plain = shop.bundle("0002")
        service.wait_until(lambda: service.ready()["bundle"] == "mimn/0002")
        answer = service.rank(99, ITEMS)
        assert answer["reasons"] == ["unknown_user", "unknown_task"]
        assert "probabilities" not in answer["items"][0]
        assert answer["items"] == sorted(answer["items"], key=lambda item: -item["probability"])
        assert service.metric('uic_serve_degraded_total{reason="unknown_task"}') == 1
        assert plain.model.tasks == {}
        # The memory of user 1 is of the other bundle, which still reads it, with all its heads.
        items = service.rank(1, ITEMS)["items"]
        assert [item["item_id"] for item in items] == best["like"]


@pytest.mark.slow
def test_a_model_of_histories_scores_all_heads(shop: Shop):
    bundle = shop.bundle("0001", model="din", tasks={"buy": 1.0})
    table = ItemTable.load(EventLog(shop.workspace / "log").items_file())
    scored = SequenceScorer(bundle, table).answer_now([Ask(ITEMS), Ask(ITEMS[:3])])
    assert [len(one.tasks["buy"]) for one in scored] == [40, 3]
    clicks = offline_logits(bundle, random_events([0]), 0, 1, ITEMS)
    np.testing.assert_allclose(scored[0].logits, clicks, atol=1e-5)
    assert np.abs(scored[0].tasks["buy"] - clicks).max() > 0.01
    np.testing.assert_allclose(scored[1].tasks["buy"], scored[0].tasks["buy"][:3], atol=1e-6)


def ranked(**tasks: list[float]) -> RankedCandidates:
    logits = np.array([0.0, -1.0], np.float32)
    labels = {name: np.array(own, np.float32) for name, own in tasks.items()}
    scored = Scored(logits, np.ones(2, bool), "mimn/1", tasks=labels)
    return RankedCandidates([7, 8], scored, None, None, (), None)


def test_a_bid_pays_for_what_the_order_is_by():
    ids, known = np.array([7, 8]), np.ones(2, bool)
    preranked = Preranked(ids, np.zeros(2, np.float32), known, np.arange(2), "prerank/1", ())
    one = ranked(buy=[-3.0, 3.0])
    by_click = funnel_answer(preranked, np.arange(2), one, [1.0, 1.0], None)["items"]
    assert [(item["item_id"], item["value"]) for item in by_click] == [
        (7, pytest.approx(0.5)),
        (8, pytest.approx(0.26894142)),
    ]
    by_buy = funnel_answer(preranked, np.arange(2), one, [2.0, 0.5], None, order_by="buy")["items"]
    assert [(item["item_id"], item["value"]) for item in by_buy] == [
        (8, pytest.approx(0.5 * 0.95257413)),
        (7, pytest.approx(2 * 0.04742587)),
    ]
    assert by_buy[0]["probabilities"] == pytest.approx({"click": 0.26894142, "buy": 0.95257413})
    assert by_buy[0]["probability"] == by_buy[0]["probabilities"]["click"]
    without = funnel_answer(preranked, np.arange(2), ranked(), None, 1, order_by="buy")["items"]
    assert [item["item_id"] for item in without] == [7]
    assert "probabilities" not in without[0]


def test_a_head_that_gives_no_number_costs_the_user_the_memory():
    class Odd:
        label = "mimn/1"

        async def answer(self, asks):
            zero, known = np.zeros(1, np.float32), np.ones(1, bool)
            return [
                Scored(zero, known, self.label, tasks={"buy": zero + (np.nan if ask.record else 1)})
                for ask in asks
            ]

    (bad, good) = asyncio.run(score_each(Odd(), [Ask([1], b"x"), Ask([1])]))
    assert bad.reasons[0].value == "not_finite"
    assert (bad.tasks["buy"], good.reasons) == ([1.0], ())
