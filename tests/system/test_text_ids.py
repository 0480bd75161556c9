"""A user and an item whose ids are anything that a text can be, from their file to an answer."""

import sys
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.serving.running import running_service
from uic.feature_repo.plugin.repository import open_feature_store
from uic.jobs.cli import main
from uic.jobs.replay.run import FOLDER, LIVE_NAME
from uic.jobs.report.memories import one_life
from uic.jobs.report.page import Page, _life
from uic.jobs.workspace.workspace import Workspace
from uic.pipelines.log.text_ids import number_of

pytestmark = pytest.mark.slow
TAG = "<script>alert(1)</script>"
USER = f"Müller / [bold]ä b[/] {TAG} ?#%2F " + "x" * 200
ITEM = f"Hängelampe / weiß 20 % {TAG} " + "y" * 200
SHELF = f"Läden/{TAG}"
USERS, ITEMS, DAYS = 12, 8, 6


def shown(path: Path) -> None:
    """What each user was shown, and clicked or not; one of them is `USER`, one item is `ITEM`."""
    draw = np.random.default_rng(3)
    first = datetime(2025, 3, 1, 8, tzinfo=UTC)
    rows = []
    for day in range(DAYS):
        for step in range(4):
            for user in range(USERS):
                item = int(draw.integers(ITEMS))
                rows.append(
                    {
                        "user": USER if user == 0 else f"00{user}",
                        "item": ITEM if item == 0 else f"00{item}",
                        "shelf": SHELF if item == 0 else f"s{item % 3}",
                        "at": first + timedelta(days=day, minutes=20 * step, seconds=user),
                        "clicked": bool(draw.integers(2)) or item == 0,
                    }
                )
    pd.DataFrame(rows).to_parquet(path)


def uic(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What a command says, to both of its outputs."""
    sys.argv = ["uic", *words]
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code or 0) == status, said
    return said.out + said.err


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("UIC_WORKSPACE", str(tmp_path / "var"))
    yield tmp_path
    Workspace(tmp_path / "var").store.stop()


def test_odd_texts_from_their_file_to_an_answer(workspace, capsys):
    shown(workspace / "shown.parquet")
    columns = "--user-id user --item-id item --category-id shelf --event-time at --clicked clicked"
    uic(capsys, "import", "table", str(workspace / "shown.parquet"), *columns.split())
    uic(capsys, "samples", "--first", "2025-03-03", "--last", "2025-03-06")
    uic(capsys, "train", "mimn", "--samples", "default", "--epochs", "1")
    uic(capsys, "store", "start")
    uic(capsys, "memories", "build", "--bundle", "mimn", "--until", "2025-03-06")
    uic(capsys, "memories", "load")
    uic(capsys, "memories", "switch", "1")
    uic(capsys, "train", "prerank", "--samples", "default", "--epochs", "1")
    uic(capsys, "store", "sequences")

    said = uic(capsys, "id", USER, ITEM, SHELF)
    assert f"{number_of(USER):>19}  user      in the log      {USER}\n" in said
    assert f"{number_of(ITEM):>19}  item      in the log      {ITEM}\n" in said
    assert f"{number_of(SHELF) >> 32:>19}  category  in the log      {SHELF}\n" in said
    assert uic(capsys, "id", "--number", str(number_of(ITEM))).endswith(f"  {ITEM}\n")

    page = uic(capsys, "user", "show", USER, "--items", "20")
    assert page.startswith(f"user         {USER}\n")
    assert ITEM in page
    assert uic(capsys, "user", "show", "x\ny/ä", status=2) == (
        "error: user x y/ä: unknown to generation 1: has no behaviour in it\n"
    )

    var = workspace / "var"
    with running_service(var, "--prerank-bundle", "prerank") as service:
        the_service_has_the_texts(service.client)
    feast_has_the_number(var)
    the_report_escapes_them(var)

    assert f"user {USER} forgotten; deleted in generation 1" in uic(
        capsys, "user", "forget", USER, "--now", "--yes"
    )
    assert "  user      not in the log  " in uic(capsys, "id", USER)
    log = b"".join(path.read_bytes() for path in (var / "log" / "ids").glob("user-*"))
    assert b"x" * 200 not in log


def the_service_has_the_texts(client: httpx.Client) -> None:
    asked = {"user_id": USER, "item_ids": [ITEM, "001", "no such", ITEM]}
    answer = client.post("/v1/rank", json=asked).json()
    assert answer["user_id"] == USER
    known = {one["item_id"]: one["known"] for one in answer["items"]}
    assert known == {ITEM: True, "001": True, "no such": False}
    assert (answer["duplicates"], answer["reasons"]) == (1, ["unknown_item"])
    assert answer["memory_events"] > 0
    batch = client.post("/v1/rank:batch", json={"requests": [asked, {**asked, "user_id": "?"}]})
    assert [one["user_id"] for one in batch.json()["answers"]] == [USER, "?"]
    assert "unknown_user" in batch.json()["answers"][1]["reasons"]

    funnel = {**asked, "bids": [1.0, 2.0, 3.0, 1.0], "keep": 3}
    stages = [
        client.post("/v1/prerank", json=asked).json(),
        client.post("/v1/funnel", json=funnel).json(),
    ]
    for answer in stages:
        assert answer["user_id"] == USER
        assert {one["item_id"]: one["known"] for one in answer["items"]} == known
    assert {one["item_id"]: one["bid"] for one in stages[1]["items"]} == {
        ITEM: 1, "001": 2, "no such": 3
    }  # fmt: skip

    interests = client.get(f"/v1/users/{quote(USER, safe='')}/interests").json()
    assert interests["user_id"] == USER
    assert interests["events"] > 0
    missing = client.get(f"/v1/users/{quote(f'a/interests/{TAG}', safe='')}/interests")
    assert missing.status_code == 404
    assert missing.json()["detail"] == f"user_id: no memory of a/interests/{TAG}: unknown_user"
    for body, said in (
        ({**asked, "user_id": number_of(USER)}, "user_id: Input should be a valid string (found "),
        ({**asked, "item_ids": [7]}, "item_ids.0: Input should be a valid string (found 7)"),
        (
            {**funnel, "bids": [1.0, 2.0, 3.0, 4.0]},
            f"bids: Value error, item {ITEM} is there twice, with ",
        ),
    ):
        path = "/v1/funnel" if "bids" in body else "/v1/rank"
        refused = client.post(path, json=body)
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith(said)
    assert TAG not in client.get("/docs").text


def feast_has_the_number(var: Path) -> None:
    store = open_feature_store(Workspace(var).config.store, var)
    read = store.get_online_features(
        features=["user_interest:memory"],
        entity_rows=[{"user_id": number_of(USER)}, {"user_id": number_of("no such")}],
    ).to_dict()
    assert [one is None for one in read["memory"]] == [False, True]


def the_report_escapes_them(var: Path) -> None:
    context = Workspace(var).context
    (var / FOLDER).mkdir()
    pq.write_table(
        pa.table({"user_id": [number_of(USER)], "clicked": [True]}), var / FOLDER / LIVE_NAME
    )
    life = one_life(context, "mimn/0001")
    assert life["user_id"] == USER
    nearest = [one for channel in life["nearest_items"] for one in channel]
    assert {type(one["item_id"]) for one in nearest} == {str}
    page = Page()
    _life(page, life, context)
    html = page.html("a user")
    assert escape(USER) in html
    assert escape(ITEM) in html
    assert TAG not in html
