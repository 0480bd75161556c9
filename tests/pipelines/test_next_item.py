"""The next-item protocol: the target is nowhere in the behaviours, negatives are not the user's."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.errors import BadInputError
from uic.pipelines.importers.next_item import NextItem, NextItemOptions, strictly_rising
from uic.pipelines.importers.run import run_import
from uic.pipelines.importers.taobao import Taobao
from uic.pipelines.log.event_log import EventLog

Row = tuple[int, int, int]


def taobao(path: Path, rows: list[tuple[int, int, str, int]]) -> Path:
    lines = [f"{user},{item},{item % 5},{kind},{seconds}" for user, item, kind, seconds in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(log: EventLog) -> tuple[list[Row], list[tuple]]:
    events, shown = [], []
    for file in log.behavior_files():
        table = pq.read_table(file.path)
        times = table["log_time"].cast(pa.int64()).to_pylist()
        events += list(
            zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), times, strict=True)
        )
    for file in log.impression_files():
        table = pq.read_table(file.path)
        times = table["event_time"].cast(pa.int64()).to_pylist()
        columns = [table[name].to_pylist() for name in ("user_id", "item_id", "clicked")]
        shown += list(zip(*columns, times, strict=True))
    return events, shown


def test_the_last_click_is_predicted_from_those_before(tmp_path: Path) -> None:
    file = taobao(
        tmp_path / "t.csv",
        [
            (1, 12, "pv", 20),
            (1, 11, "pv", 10),
            (1, 13, "pv", 20),  # the target: of its second, but later in the file
            (1, 99, "buy", 30),  # not a click
            (2, 14, "pv", 5),
            (2, 15, "pv", 6),
            (3, 16, "pv", 7),  # too short
        ],
    )
    log = EventLog(tmp_path / "log")
    options = NextItemOptions(min_length=2, truncate=None)
    summary = run_import(
        Taobao(file), log, time_zone="UTC", partitions=2, any_time=True, next_item=options
    )
    events, shown = imported(log)
    assert sorted(events) == [(1, 11, 10_000), (1, 12, 20_000), (2, 14, 5_000)]
    targets = sorted(row for row in shown if row[2])
    assert targets == [(1, 13, True, 20_001), (2, 15, True, 6_000)]
    negatives = sorted(row for row in shown if not row[2])
    assert [(user, time) for user, _, _, time in negatives] == [(1, 20_001), (2, 6_000)]
    assert negatives[0][1] in {14, 15, 16}
    assert negatives[1][1] in {11, 12, 13, 16}
    assert summary.next_item is not None
    assert (summary.next_item.users, summary.next_item.too_short) == (3, 1)
    assert log.manifests()[0]["details"]["min_length"] == 2


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 6),
            st.sampled_from(["pv", "buy"]),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=60,
    ),
    truncate=st.sampled_from([None, 1, 3]),
    everything=st.booleans(),
)
def test_no_history_holds_its_target_and_no_negative_is_known(
    rows: list, truncate: int | None, everything: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("next")
    log = EventLog(folder / "log")
    options = NextItemOptions(2, truncate, None if everything else (0,))
    try:
        run_import(
            Taobao(taobao(folder / "t.csv", rows)),
            log,
            time_zone="UTC",
            partitions=2,
            any_time=True,
            next_item=options,
        )
    except BadInputError:
        assert not log.epochs()
        return
    sequences: dict[int, list[int]] = {}
    for user, item, kind, _ in sorted(rows, key=lambda row: row[3]):
        if everything or kind == "pv":
            sequences.setdefault(user, []).append(item)
    events, shown = imported(log)
    for user, item, clicked, time in shown:
        before = [row[1] for row in sorted(events, key=lambda row: row[2]) if row[0] == user]
        wanted = sequences[user][:-1]
        assert before == (wanted[-truncate:] if truncate else wanted)
        assert all(row[2] < time for row in events if row[0] == user)
        if clicked:
            assert item == sequences[user][-1]
        else:
            assert item not in sequences[user]
    assert {row[0] for row in events} == {row[0] for row in shown}
    assert len(shown) == 2 * len({row[0] for row in shown})


def test_the_same_seed_draws_the_same_negatives(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [(int(n % 20), int(random.integers(0, 50)), "pv", n) for n in range(200)]
    file = taobao(tmp_path / "t.csv", rows)
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        log = EventLog(tmp_path / name)
        options = NextItemOptions(2, None, seed=seed)
        run_import(
            Taobao(file), log, time_zone="UTC", partitions=2, any_time=True, next_item=options
        )
        found.append(imported(log)[1])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_negatives_follow_the_share_of_events(tmp_path: Path) -> None:
    protocol = NextItem(tmp_path / "spool", NextItemOptions(2, None))
    # 2,000 users know items 5 and 6; of the other events three quarters are of item 0.
    known = [(user, item) for user in range(2000) for item in (5, 6)]
    known += [(user, 0) for user in range(2000, 2300) for _ in range(2)]
    known += [(user, 1) for user in range(2300, 2400) for _ in range(2)]
    users, items = np.array(known).T
    protocol.add(
        pa.table(
            {
                "user_id": users,
                "item_id": items,
                "category_id": items,
                "behavior": pa.array(np.zeros(len(items), np.int8)),
                "event_time": pa.array(np.arange(len(items)), pa.timestamp("ms")),
            }
        )
    )
    shown = pa.concat_tables([impressions for _, impressions in protocol.results()])
    user_ids, item_ids = shown["user_id"].to_numpy(), shown["item_id"].to_numpy()
    negatives = item_ids[~shown["clicked"].to_numpy() & (user_ids < 2000)]
    assert set(negatives.tolist()) == {0, 1}
    assert 0.7 < (negatives == 0).mean() < 0.8


def test_nobody_with_a_sequence_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    file = taobao(tmp_path / "t.csv", [(1, 1, "pv", 1), (2, 2, "pv", 2)])
    log = EventLog(tmp_path / "log")
    with pytest.raises(BadInputError, match=r"none of 2 users .*\(2 have too few .* --min-length"):
        run_import(
            Taobao(file),
            log,
            time_zone="UTC",
            partitions=2,
            any_time=True,
            next_item=NextItemOptions(2, None),
        )


@given(st.lists(st.lists(st.integers(0, 4 * 10**15), min_size=1, max_size=6), max_size=8))
def test_times_of_a_user_rise_and_move_no_more_than_they_must(groups: list[list[int]]) -> None:
    groups = [sorted(group) for group in groups]
    lengths = np.array([len(group) for group in groups], np.int64)
    times = np.array([time for group in groups for time in group], np.int64)
    risen = strictly_rising(times, np.cumsum(lengths) - lengths, lengths).tolist()
    expected = []
    for group in groups:
        last = -1
        for time in group:
            last = max(time, last + 1)
            expected.append(last)
    assert risen == expected
