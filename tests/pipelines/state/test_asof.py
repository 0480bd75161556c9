"""`uic features asof`: what a record folded up to the moment says, byte for byte; odd rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.state.logs import BEGIN_MS, DAY_MS, EVERY_KIND
from tests.pipelines.audit.conftest import audit_redis
from tests.pipelines.memories.conftest import FIRST, random_behaviors, write_log
from uic.feature_repo.snapshots.published_values import load_values, values_of
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.settings import StoreSettings
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_state
from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import MISSING
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import header_view, parts_view
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked
from uic.pipelines.audit.log_tail import NoTail
from uic.pipelines.audit.memories import AuditRequest, audit_generation
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.log.columns import event_batch
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.memories.exclude import Exclusion, load_rules
from uic.pipelines.memories.read import event_schema
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.settings import MemoriesSettings, SaleSettings
from uic.pipelines.state.asof import AsOfError, AsOfRequest, bucket_features, features_as_of
from uic.pipelines.state.rows import RowsError

__all__ = ["audit_redis"]
NOW = [1_709_251_200_000]  # 2024-03-01
COLUMNS = (
    EventColumn(name="price", kind=Kind.NUMBER, field="price"),
    EventColumn(name="shop", kind=Kind.CATEGORICAL, field="shop"),
)
STATE = StateDefinition.of_document(EVERY_KIND, "test")
PLAIN = StateDefinition.of_document(
    {
        "version": 1,
        "parts": {
            name: part
            for name, part in EVERY_KIND["parts"].items()
            if name not in ("shops", "spent")
        },
    },
    "test",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle of every kind of part, and one without columns of events."""
    root = tmp_path_factory.mktemp("bundles") / "state"
    save_state(root / "1", STATE, COLUMNS)
    save_state(root / "2", PLAIN, ())
    return root


def log_table(seed: int, users: int, count: int) -> pa.Table:
    """Events of two epochs, each with a partition of its users', some positions twice."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, users, count)
    epoch = np.sort(draw.integers(1, 3, count))
    # A few times only, so that many are equal; epoch 2 begins before epoch 1 ends.
    steps = draw.integers(0, 3, count) * 6 * 3_600_000
    times = BEGIN_MS + np.cumsum(steps) - (epoch == 2) * 5 * DAY_MS
    offsets = np.arange(count)
    offsets[1:][draw.random(count - 1) < 0.1] -= 1  # a position that was there already
    number = {
        "user_id": ids,
        "epoch": epoch,
        "partition": (ids + epoch) % 2 + (draw.random(count) < 0.02),  # and one that moved
        "offset": offsets,
        "item_id": draw.integers(0, 12, count),
        "category_id": draw.integers(0, 4, count),
        "behavior": draw.integers(0, 4, count),
        "event_time": times - draw.integers(0, 3 * DAY_MS, count),
        "log_time": times,
        "event.price": np.where(draw.random(count) < 0.2, np.nan, draw.random(count)),
        "event.shop": np.where(draw.random(count) < 0.2, MISSING, draw.integers(0, 5, count)),
    }
    schema = event_schema(COLUMNS)
    return pa.table({one.name: pa.array(number[one.name]).cast(one.type) for one in schema}, schema)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_row_has_the_bytes_of_a_record_folded_up_to_it(folder, seed) -> None:
    events = log_table(seed, users=4, count=60)
    draw = np.random.default_rng(seed)
    rows = pa.table(
        {
            "user_id": draw.integers(0, 5, 30),  # user 4 has no event
            "time": draw.choice(events.column("log_time").to_numpy(), 30) + draw.integers(0, 2, 30),
            "item_id": draw.integers(0, 12, 30),
            "category_id": draw.integers(0, 4, 30),
            "row": np.arange(30),
            "shop": draw.integers(0, 5, 30),
        }
    )
    found, _ = bucket_features(STATE, COLUMNS, events, rows)
    folder_of = MemoryFolder(load_bundle(folder / "1"), 1)
    order = np.lexsort((events.column("offset").to_numpy(), events.column("epoch").to_numpy()))
    batch = event_batch(events.take(pa.array(order)), np.arange(5))
    for row in range(30):
        user, now = (rows.column(name)[row].as_py() for name in ("user_id", "time"))
        record, newest = folder_of.initial_records(1), -1
        for event in np.flatnonzero(batch.user_index == user):
            one = batch.select(np.array([event]))
            after = folder_of.fold(record, type(one)(**{**vars(one), "user_index": np.array([0])}))
            if after.skipped[0] or after.moved[0]:
                continue
            newest = max(newest, int(batch.log_times_ms[event]))
            if newest >= now:
                break
            record = after.records
        column = np.array([0])
        asked = Asked(
            column,
            column + now,
            *(rows.column(name).to_numpy()[[row]] for name in ("item_id", "category_id")),
            {"shop": rows.column("shop").to_numpy()[[row]]},
        )
        states = np.ascontiguousarray(parts_view(record, folder_of.parts_bytes))
        assert STATE.features(states, asked).tobytes() == found[row].tobytes()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("asof") / "log", random_behaviors(4, 400)).root


@pytest.fixture
def asof(log, tmp_path):
    """Runs the command's function on columns, and gives the table that it wrote."""

    def run(state=PLAIN, log=log, columns=(), **given):
        pq.write_table(pa.table(given), tmp_path / "rows.parquet")
        out = tmp_path / "out.parquet"
        features_as_of(AsOfRequest(log, state, columns), tmp_path / "rows.parquet", out)
        return pq.read_table(out)

    return run


def moment(day: int) -> datetime:
    return datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC) + timedelta(days=day)


def test_rows_come_back_in_their_order_with_a_column_a_feature(asof) -> None:
    found = asof(
        user_id=[3, 1, 3, 10**9],
        time=[moment(9), moment(2), moment(0), moment(9)],
        mine=list("abcd"),
    )
    assert found.column_names == ["user_id", "time", "mine", *(o.name for o in PLAIN.described)]
    assert found.column("mine").to_pylist() == list("abcd")
    met = found.column("items.distinct").to_pylist()
    assert met[0] > 0
    assert met[2:] == [0, 0]


def test_a_time_as_milliseconds_and_in_another_zone_is_the_same(asof) -> None:
    when = moment(3)
    of = [
        asof(user_id=[1], time=times).select(PLAIN_NAMES)
        for times in (
            pa.array([when]),
            pa.array([when]).cast(pa.timestamp("ns", "Asia/Tokyo")),
            [int(when.timestamp() * 1000)],
        )
    ]
    for other in of[1:]:
        np.testing.assert_array_equal(of[0].to_pandas(), other.to_pandas())


PLAIN_NAMES = [one.name for one in PLAIN.described]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"user_id": [1]}, "no column time; it has user_id"),
        ({"time": [1]}, "no column user_id; it has time"),
        ({"user_id": ["a"], "time": [1]}, "column user_id has string, expected whole numbers"),
        ({"user_id": [1, None], "time": [1, 1]}, "column user_id has 1 nulls, expected whole"),
        ({"user_id": [1], "time": ["now"]}, "column time has string, expected timestamps or mil"),
        ({"user_id": [1], "time": [1.5]}, "column time has double, expected timestamps or mil"),
        ({"user_id": [1, 1], "time": [1, None]}, "column time has 1 nulls, expected timestamps"),
        ({"user_id": [1], "time": [1_709_000_000_000_000]}, "in row 0, expected milliseconds"),
        ({"user_id": [1], "time": [-(2**63)]}, "in row 0, expected milliseconds"),
        (
            {"user_id": [1, 1], "time": [1_709_251_200_000, 1_709_251_200]},
            "1709251200 in row 1, expected .* from 2000-01-01 to 2106; it looks like seconds",
        ),
        (
            {"user_id": [1], "time": [datetime(1970, 1, 21, tzinfo=UTC)]},
            "seconds taken for milliseconds",
        ),
        ({"user_id": [5, -1], "time": NOW * 2}, "column user_id has -1 in row 1, expected the l"),
        (
            {"user_id": [1, 1], "time": NOW * 2, "item_id": [3, -1]},
            "column item_id has -1 in row 1, expected .* begin at 0; rows without one go into a",
        ),
        ({"user_id": [1], "time": NOW, "category_id": [-1]}, "column category_id has -1 in row 0"),
        ({"user_id": np.array([2**64 - 1]), "time": [1]}, "column user_id has an id beyond"),
        ({"user_id": [1], "time": NOW, "item_id": [0.5]}, "column item_id has double, expected"),
    ],
)
def test_wrong_rows_are_one_line(asof, given, says) -> None:
    with pytest.raises(RowsError, match=rf"rows\.parquet: .*{says}") as error:
        asof(**given)
    assert "\n" not in str(error.value)


def test_a_column_of_a_features_name_is_refused(asof) -> None:
    with pytest.raises(AsOfError, match=r"has a column last\.gap already; rename it"):
        asof(user_id=[1], time=NOW, **{"last.gap": [1.0]})


def test_no_rows_give_no_rows_with_all_columns(asof) -> None:
    found = asof(user_id=pa.array([], pa.int64()), time=pa.array([], pa.int64()))
    assert found.num_rows == 0
    assert found.column_names[2:] == PLAIN_NAMES


def test_a_file_that_is_no_parquet_and_a_log_without_events_are_one_line(asof, log, tmp_path):
    odd = tmp_path / "odd.parquet"
    odd.write_text("no Parquet")
    with pytest.raises(RowsError, match=r"odd\.parquet: not readable as Parquet"):
        features_as_of(AsOfRequest(log, PLAIN), odd, tmp_path / "out")
    empty = EventLog(tmp_path / "empty")
    with pytest.raises(AsOfError, match="no event log; run `uic import`"):
        asof(log=empty.root, user_id=[1], time=[1])


def test_a_log_from_before_2000_is_asked_about_its_own_times(tmp_path) -> None:
    events = random_behaviors(2, 50)
    shifted = pc.subtract(events.column("event_time"), pa.scalar(timedelta(days=10_000)))
    early = events.set_column(4, "event_time", shifted.cast(pa.timestamp("ms")))
    log = write_log(tmp_path / "log", early).root
    pq.write_table(
        pa.table({"user_id": [0], "time": [moment(2) - timedelta(days=10_000)]}), tmp_path / "rows"
    )
    found = features_as_of(AsOfRequest(log, PLAIN), tmp_path / "rows", tmp_path / "out")
    assert found.with_events == 1


def test_what_a_generation_leaves_out_a_row_does_not_see(folder, log, tmp_path) -> None:
    """Sale days, a user for a time, a producer: as `uic memories build` leaves them out."""
    sale = tmp_path / "sale.yaml"
    sale.write_text(SaleCalendar.of_days((FIRST + timedelta(days=1),), "UTC").to_yaml())
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"- sources: [web]\n  until: {moment(1).isoformat()}\n- users: [2]\n")
    settings = SaleSettings(calendar=sale)
    snapshot = build_memories(
        MemoriesRequest(
            log=log, memories=tmp_path / "memories", bundle=folder / "2",
            until=FIRST + timedelta(days=3), time_zone="UTC",
            memories_settings=MemoriesSettings(buckets=2), sale=settings,
            rules=load_rules(rules),
        )
    )  # fmt: skip
    memories = pa.concat_tables(
        pq.read_table(snapshot.path / entry["path"]) for entry in snapshot.manifest["files"]
    )
    users = memories.column("user_id").to_numpy()
    count = len(users)
    assert count > 20
    assert 2 not in users
    record = values_of(memories.column("memory").combine_chunks(), snapshot.value_bytes, "test")
    now = np.full(count, int(moment(4).timestamp() * 1000))
    items = np.arange(count) % 70 + 1
    asked = Asked(np.arange(count), now, items, items % 12)
    states = np.ascontiguousarray(parts_view(record, PLAIN.bytes))
    given = {"user_id": users, "time": now, "item_id": items, "category_id": items % 12}
    pq.write_table(pa.table(given), tmp_path / "rows.parquet")

    def found(exclusion: Exclusion):
        request = AsOfRequest(log, PLAIN, exclusion=exclusion)
        features_as_of(request, tmp_path / "rows.parquet", tmp_path / "out")
        table = pq.read_table(tmp_path / "out")
        return np.stack([table.column(name).to_numpy() for name in PLAIN_NAMES], axis=1)

    calendar = SaleCalendar.for_behaviors(settings)
    told = PLAIN.features(states, asked)
    assert found(Exclusion.of(calendar, load_rules(rules))).tobytes() == told.tobytes()
    for less in (Exclusion(), Exclusion.of(calendar), Exclusion(load_rules(rules))):
        assert found(less).tobytes() != told.tobytes()


def test_the_audit_of_a_generation_of_parts_alone_finds_one_flipped_bit(
    folder, log, tmp_path, audit_redis
) -> None:
    request = MemoriesRequest(
        log=log, memories=tmp_path / "memories", bundle=folder / "2",
        until=FIRST + timedelta(days=3), time_zone="UTC",
        memories_settings=MemoriesSettings(buckets=2), sale=SaleSettings(),
    )  # fmt: skip
    snapshot = build_memories(request)
    running = audit_redis.start()
    with open_memories(StoreSettings(address=running.address), tmp_path) as store:
        store.client.flushall()
        load_values(snapshot, store.memories, store.generations)
        audit = AuditRequest(
            log=log, memories=tmp_path / "memories", bundles=folder.parent,
            scratch=tmp_path / "spool", settings=AuditSettings(sample_rate=1.0), tail=NoTail(),
        )  # fmt: skip

        def counts():
            generation = store.generations.get(snapshot.generation)
            found = audit_generation(audit, store, generation, feast=None)
            return {verdict.name: count for verdict, count in found.counts.items() if count}

        [(verdict, users)] = counts().items()
        assert (verdict, users > 20) == ("MATCHED", True)
        bytes_of = MemoryFolder(load_bundle(folder / "2"), 1).record_bytes
        [record], _ = store.memories.read(snapshot.generation, np.array([1]), bytes_of)
        assert header_view(record[None])["events"][0] > 0
        record = record.copy()
        record[-9] ^= 1
        [key] = store.memories.keys.entities(snapshot.generation, [1])
        store.client.set(key, record.tobytes())
        assert counts() == {"MATCHED": users - 1, "DIFFERING": 1}
