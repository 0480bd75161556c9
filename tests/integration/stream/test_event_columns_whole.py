"""Columns of events: from a table to a trained memory, a stream, its log, and an audit."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from uic.jobs.config.config import Config
from uic.jobs.stream.letters.compact import compact
from uic.jobs.stream.letters.dead_letters import read_dead_letters
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.workspace.workspace import Workspace
from uic.models.bundles.bundle import load_bundle
from uic.models.features.definition import Owner
from uic.models.records.record import state_view
from uic.pipelines.importers.table import TableColumns

pytestmark = pytest.mark.timeout(1200)

FIRST, LAST, STREAMED = date(2026, 3, 1), date(2026, 3, 4), date(2026, 3, 5)
DAY_MS = 86_400_000
START_MS = int(np.datetime64(FIRST, "ms").astype(np.int64))
FAST = {"checkpoint_seconds": 2.0, "archive_roll_seconds": 2.0, "task_restarts": 0, "attempts": 1}
SMALL = {"slots": 2, "controller": 4, "item_width": 4, "category_width": 4, "channel_width": 4}
SHOPS = ["north", "south", "east"]


def table(folder: Path) -> Path:
    draw = np.random.default_rng(1)
    rows = 3000
    shown = pd.DataFrame({"user": draw.integers(1, 31, rows), "item": draw.integers(1, 60, rows)})
    shown["time"] = np.sort(draw.integers(START_MS, START_MS + 4 * DAY_MS, rows))
    shown["price"] = draw.lognormal(2, 1, rows).round(2)
    shown.loc[draw.random(rows) < 0.1, "price"] = np.nan
    shown["shop"] = draw.choice(SHOPS, rows)
    shown["clicked"] = draw.integers(0, 2, rows)
    shown.to_csv(folder / "shown.csv", index=False)
    return folder / "shown.csv"


def payloads() -> list[bytes]:
    """A day of events; every tenth has a price, every fifteenth a shop, of the wrong type."""
    draw = np.random.default_rng(2)
    made = []
    for at in range(600):
        event = {
            "user_id": int(draw.integers(1, 40)),
            "item_id": int(draw.integers(1, 60)),
            "category_id": 0,
            "behavior": ["click", "buy"][at % 2],
            "event_time": START_MS + 4 * DAY_MS + 1000 * at,
            "price": None if at % 7 == 0 else float(draw.lognormal(2, 1)),
            "shop": str(draw.choice([*SHOPS, "new"])),
        }
        if at % 10 == 0:
            event["price"] = "12.50"
        if at % 15 == 0:
            event["shop"] = 1.5
        made.append(json.dumps(event).encode())
    return made


def served(workspace: Workspace, generation: int, users: np.ndarray) -> np.ndarray:
    found = workspace.generation(generation).generation
    with workspace._open_store() as store:
        return store.memories.read(generation, users, found.record_bytes)[0]


def test_batch_stream_and_audit_fold_the_same_columns(tmp_path):
    events = tmp_path / "events"
    config = Config(stream={"source": "files", "files": events, **FAST})
    workspace = Workspace(tmp_path / "var", config)
    columns = TableColumns(
        "user",
        "item",
        "time",
        clicked="clicked",
        features={Owner.EVENT: {"price": "price", "shop": "shop"}},
    )
    workspace.import_table(table(tmp_path), columns)
    workspace.samples(FIRST, LAST, gates=False)
    manifest = json.loads((workspace.context.samples / "default" / "manifest.json").read_text())
    assert [one["name"] for one in manifest["event_features"]] == ["price", "shop"]
    named = ["behavior", "event.price"]
    trained = workspace.train(
        "mimn",
        settings={**SMALL, "event_features": named, "head_widths": [4], "min_count": 1},
        epochs=1,
        version="priced",
    )
    bundle = load_bundle(workspace.context.bundles / "mimn" / "priced")
    assert [column.name for column in bundle.event_columns] == ["price"]
    assert trained.label == "mimn/priced"
    assert bundle.memory.event_terms.tables["event_price"].abs().min() > 0  # it learned of each
    workspace.store.start()
    try:
        snapshot = workspace.build_memories("mimn/priced", LAST)
        workspace.load()
        workspace.switch(snapshot.generation)
        workspace.audit(sample_rate=1).require_no_mismatch()
        rows = [
            LoggedPayload(payload, 0, at, START_MS + 4 * DAY_MS + 1000 * at)
            for at, payload in enumerate(payloads())
        ]
        write_event_file(events / "0-000000000.jsonl.gz", rows)
        said: list[str] = []
        Supervisor(Planner(workspace.context, RunOptions(until_end=True)), said.append).run()
        assert said[-1] == "attempt 1 finished"
        # The bundle reads the price alone: what is wrong with a shop is not its matter.
        letters = read_dead_letters(workspace.path / "stream" / "dead-letters")
        assert {letter.offset: letter.reason for letter in letters} == dict.fromkeys(
            range(0, 600, 10), "wrong_type"
        )
        tailed = workspace.audit(sample_rate=1)
        tailed.require_no_mismatch()
        (done,) = compact(workspace.context, STREAMED)
        assert (done.publication.behaviors, done.rejected) == (600, 0)
        compacted = workspace.audit(sample_rate=1)
        compacted.require_no_mismatch()
        counts = [audit.generations[0].events for audit in (tailed, compacted)]
        assert counts[0] == counts[1]
        # From nothing, by the log alone: the same bytes that the stream made step by step.
        again = workspace.build_memories("mimn/priced", STREAMED, days=30, generation=2)
        workspace.load(again.name)
        users = np.arange(1, 40)
        streamed, folded = (served(workspace, number, users) for number in (1, 2))
        assert np.array_equal(state_view(streamed), state_view(folded))
        assert workspace.generation(2).generation.rows == len(users)
    finally:
        workspace.store.stop()
