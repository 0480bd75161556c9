"""From photographs to answers over HTTP, by commands alone: DICM and its pre-rank, as a shop runs.

Photographs are those of `UIC_SHARED_DATA/clothing_images`, or drawn ones where there are none.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from tests.jobs.serving.running import running_service
from tests.pipelines.images.pictures import encoded, gradient
from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.layout import SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.cli import app
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.sequences import Shown, ranker_batch
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.images.features import ImageFeatures
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow

CLASSES = ("hat", "shoes", "dress")
PHOTOGRAPHS = 6  # of each class
USER = 3
TINY = ("item_width=4", "category_width=2", "head_widths=[8]", "image_widths=[6,4]",
        "image_id_rows=50", "history_limit=20", "batch_impressions=64")  # fmt: skip


def photographs(folder: Path) -> None:
    """Folders of classes, with so many photographs each."""
    shared = Path(os.environ.get("UIC_SHARED_DATA", "../shared/data")) / "clothing_images/images"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        found = sorted((shared / name).glob("*.jpg"))[:PHOTOGRAPHS]
        for file in found:
            shutil.copy(file, folder / name)
        for seed in range(len(found), PHOTOGRAPHS):
            drawn = encoded(gradient(seed=10 * number + seed))
            (folder / name / f"drawn-{seed}.jpg").write_bytes(drawn)


@dataclass(frozen=True)
class Workspace:
    """A shop whose models are trained and whose vectors are in the store."""

    path: Path

    def uic(self, *words: str) -> str:
        words = (*words, "-w", str(self.path))
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    @property
    def features(self) -> ImageFeatures:
        return ImageFeatures.open(self.path / "images" / "shop")

    @property
    def table(self) -> ItemTable:
        return ItemTable.load(EventLog(self.path / "log").items_file())

    def without_image(self) -> int:
        """An item of the log that shows nothing."""
        items = self.table.item_ids
        return int(items[self.features.rows_of(items) < 0][0])

    def offline(self, model: str, item_ids: list[int]) -> dict[int, float]:
        """Logits of items for the user by the model itself, which embeds the images."""
        bundle: Bundle = load_bundle(self.path / "bundles" / model / "0001")
        bundle.model.attach_images(self.features)
        ring, keys = SequenceRing(), ViewKeys.of_sequences(StoreSettings().project)
        with open_memories(StoreSettings(), self.path) as store:
            rings, _ = PackedStore(store.client, keys, layout=SEQUENCE).read(0, [USER])
        history = ring.read(rings[:, -ring.ring_bytes :])
        assert len(history.item_ids) > 5
        items = np.array(item_ids)
        nothing = np.zeros(len(items), np.int64)
        shown = Shown(
            np.array([USER]),
            np.array([len(items)]),
            items,
            self.table.categories(items)[0],
            nothing,
        )
        with torch.inference_mode():
            logits = bundle.model(ranker_batch(bundle, history, shown))
        return dict(zip(item_ids, logits.tolist(), strict=True))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Everything up to the service."""
    found = Workspace(tmp_path_factory.mktemp("shop"))
    folder = found.path / "photographs"
    photographs(folder)
    (found.path / "uic.yaml").write_text("images: {pretrain: {epochs: 1}}\n")
    size = ("--users", "40", "--items", "120", "--days", "4")
    found.uic("simulate", *size, "--images", str(folder), "--impressions-per-user-day", "5")
    # Two items have lost their photographs.
    manifest = found.path / "simulated_images.csv"
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:-2]) + "\n")
    found.uic("samples", "--first", "2025-01-02", "--last", "2025-01-04", "--no-gates")
    found.uic("images", "pretrain", str(folder))
    found.uic("images", "extract", str(manifest), "--root", str(folder), "--out", "shop")
    settings = [word for text in ("images=shop", *TINY) for word in ("--set", text)]
    found.uic("store", "start")
    try:
        for model in ("dicm", "prerank"):
            found.uic("train", model, "--samples", "default", "--epochs", "1", *settings)
            found.uic("images", "embed", "--bundle", model, "--images", "shop")
            found.uic("images", "load")
        users = {user for file in EventLog(found.path / "log").behavior_files()
                 for user in pq.read_table(file.path)["user_id"].to_pylist()}  # fmt: skip
        assert f"sequences of {len(users)} users" in found.uic("store", "sequences")
        yield found
    finally:
        EmbeddedRedis(found.path / STORE_FOLDER).stop()


def ranked(answer: dict) -> dict[int, float]:
    """Log odds of each item of an answer."""
    odds = {item["item_id"]: item["probability"] for item in answer["items"]}
    return {item: float(np.log(p / (1 - p))) for item, p in odds.items()}


def test_photographs_are_served_and_a_new_one_counts_at_once(shop: Workspace):
    bare = shop.without_image()
    items = [*shop.table.item_ids[:30].tolist(), bare]
    assert bare not in items[:-1]
    arguments = ("--bundle", "dicm", "--history-from", "log", "--prerank-bundle", "prerank")
    with running_service(shop.path, *arguments) as service:

        def post(path: str, item_ids: list[int], **rest) -> dict:
            body = {"user_id": USER, "item_ids": item_ids, **rest}
            answer = service.client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        ready = service.ready()
        assert (ready["bundle"], ready["prerank"]) == ("dicm/0001", "prerank/0001")
        assert ready["item_version"] == 1

        # Both stages have the scores of the models that embed the images themselves, also for the
        # item without one, which has the default vector and is counted.
        counter = "uic_serve_items_without_image_total"
        before = service.metric(counter)
        rank, prerank = post("/v1/rank", items[:-1]), post("/v1/prerank", items)
        in_history = service.metric(counter) - before
        assert ranked(rank) == pytest.approx(shop.offline("dicm", items[:-1]), abs=1e-4)
        scores = {item["item_id"]: item["score"] for item in prerank["items"]}
        assert scores == pytest.approx(shop.offline("prerank", items), abs=1e-4)
        with_bare = post("/v1/rank", items)
        assert ranked(with_bare) == pytest.approx(shop.offline("dicm", items), abs=1e-4)
        assert service.metric(counter) - before - in_history == in_history + 1
        funnel = post("/v1/funnel", items, keep=10)
        kept = [item["item_id"] for item in prerank["items"][:10]]
        assert {item["item_id"] for item in funnel["items"]} == set(kept)
        values = ranked(with_bare)
        assert ranked(funnel) == pytest.approx({item: values[item] for item in kept}, abs=1e-4)
        for answer in (rank, prerank, with_bare, funnel):
            assert (answer["degraded"], answer["reasons"]) == (False, [])

        # An item of today, and its photograph: no restart, no new version.
        new = int(shop.table.item_ids[-1]) + 1
        wanted = [*items, new]
        unseen = {path: post(path, wanted) for path in ("/v1/rank", "/v1/prerank")}
        for answer in unseen.values():
            assert answer["reasons"] == ["unknown_item"]
        photograph = shop.path / "new.jpg"
        photograph.write_bytes(encoded(gradient(seed=77)))
        added = shop.uic("images", "add", str(photograph), "--item", str(new), "--images", "shop")
        assert "readable now in item version 1, 2" in added
        expected = {model: shop.offline(model, wanted) for model in ("dicm", "prerank")}
        assert expected["dicm"][new] != pytest.approx(ranked(unseen["/v1/rank"])[new], abs=1e-4)

        def served() -> bool:
            found = {
                item["item_id"]: item["score"] for item in post("/v1/prerank", wanted)["items"]
            }
            now = ranked(post("/v1/rank", wanted))
            return now == pytest.approx(expected["dicm"], abs=1e-4) and found == pytest.approx(
                expected["prerank"], abs=1e-4
            )

        service.wait_until(served)
        # One that nobody has asked for yet is right with the first request.
        shop.uic("images", "add", str(photograph), "--item", str(new + 1), "--images", "shop")
        first = ranked(post("/v1/rank", [new + 1]))
        assert first == pytest.approx(shop.offline("dicm", [new + 1]), abs=1e-4)
