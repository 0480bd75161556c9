"""The packed store on a real Redis: what is written is read, and only larger positions land."""

from dataclasses import replace

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.errors import (
    EmptyStoreError,
    ForeignValueError,
    GenerationStateError,
    PartitionMovedError,
    StoreAccessError,
    StoreFellBehindError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.layout import NO_GENERATION, VECTOR, VECTOR_HEADER, ViewKeys
from uic.feature_repo.store.packed import MarkerMove, PackedStore
from uic.models.records.record import Records, empty_records, header_view, state_view

KEYS = ViewKeys("test", "user_interest")
BUNDLE = b"bundle-1"
STATE_FLOATS = 6


def records_at(offsets: list[int], epoch: int = 1, partition: int = 0) -> Records:
    """Records whose state repeats their offset, so that a mix-up shows."""
    records = empty_records(len(offsets), STATE_FLOATS)
    header = header_view(records)
    header["generation"] = 1
    header["bundle"] = np.void(BUNDLE)
    header["epoch"] = epoch
    header["offset"] = np.array(offsets, dtype=np.uint64)
    header["partition"] = partition
    state_view(records)[:] = (np.array(offsets, dtype=np.uint64) % 97)[:, None]
    return records


def registered(client: redis.Redis, rows: int = 0) -> Generations:
    generations = Generations(client, KEYS)
    generations.register(
        Generation(
            number=1,
            rows_expected=rows,
            bundle=BUNDLE,
            bundle_name="mimn/1",
            record_bytes=44 + 2 * STATE_FLOATS,
            positions={1: {0: 10}},
            snapshot="generation=001/dt=2020-01-01",
        )
    )
    return generations


def ready(client: redis.Redis) -> Generations:
    generations = registered(client)
    generations.complete(1, np.array([], dtype=np.int64))
    return generations


@pytest.fixture
def store(redis_server: redis.Redis) -> PackedStore:
    registered(redis_server)
    return PackedStore(redis_server, KEYS, keys_per_script=3, keys_per_read=4)


def test_what_is_written_is_read_in_the_order_asked(store: PackedStore) -> None:
    ids = np.array([5, -7, 2**62, 0, 11, 8, 3])
    written = records_at([1, 2, 3, 4, 5, 6, 7])
    assert store.write(1, ids, written).tolist() == [True] * 7
    records, found = store.read(1, [8, 99, -7, 2**62, 5, 4, 0])
    assert found.tolist() == [True, False, True, True, True, False, True]
    assert records[found].tobytes() == written[[5, 1, 2, 0, 3]].tobytes()
    assert not records[~found].any()


def test_unknown_users_only_give_an_empty_array(store: PackedStore) -> None:
    records, found = store.read(1, [1, 2], record_bytes=56)
    assert records.shape == (2, 56)
    assert not found.any()


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        (0x7F, 0x80),
        (0xFF, 0x100),
        (0x80, 0x00FF00),
        (ord("Z"), ord("a")),
        (0x7FFFFFFF, 0x80000000),
        (0xFFFFFFFF, 0x100000000),
        (2**63 - 1, 2**63),
        (0, 1),
    ],
)
def test_positions_compare_as_unsigned_numbers(
    store: PackedStore, smaller: int, larger: int
) -> None:
    first, second = records_at([smaller]), records_at([larger])
    assert store.write(1, [1], first).tolist() == [True]
    assert store.write(1, [1], second).tolist() == [True]
    assert store.write(1, [1], first).tolist() == [False]
    assert store.write(1, [1], second).tolist() == [False]
    assert store.read(1, [1])[0].tobytes() == second.tobytes()


def test_a_newer_epoch_lands_whatever_its_offset_and_partition(store: PackedStore) -> None:
    old, new = records_at([2**63], epoch=1), records_at([0], epoch=2, partition=3)
    assert store.write(1, [1], old).tolist() == [True]
    assert store.write(1, [1], new).tolist() == [True]
    assert store.write(1, [1], old).tolist() == [False]


def test_another_partition_of_the_same_epoch_is_refused(store: PackedStore) -> None:
    store.write(1, [7], records_at([5], partition=2))
    with pytest.raises(PartitionMovedError, match=r"user 7 .* partition 2 .* partition 3"):
        store.write(1, [7], records_at([9], partition=3))


def test_a_user_twice_in_one_batch_keeps_the_larger_position(store: PackedStore) -> None:
    assert store.write(1, [1, 1, 1], records_at([5, 9, 7])).tolist() == [True, True, False]
    assert int(header_view(store.read(1, [1])[0])["offset"][0]) == 9


def test_a_value_that_is_not_ours_is_not_overwritten(store: PackedStore) -> None:
    [key] = KEYS.entities(1, [4])
    for foreign in (b"hello, I am somebody else's value", b"", b"U"):
        store.client.set(key, foreign)
        with pytest.raises(ForeignValueError, match="not ours"):
            store.write(1, [3, 4], records_at([1, 2]))
        assert store.client.get(key) == foreign
        with pytest.raises(ForeignValueError):
            store.read(1, [4], record_bytes=56)
    store.client.delete(key)
    store.client.rpush(key, "a list")
    with pytest.raises(ForeignValueError):
        store.write(1, [4], records_at([1]))
    assert store.client.lrange(key, 0, -1) == [b"a list"]
    assert store.read(1, [3])[1].tolist() == [False]


def test_a_record_of_a_newer_version_is_refused(store: PackedStore) -> None:
    newer = records_at([1])
    header_view(newer)["version"] = 2
    [key] = KEYS.entities(1, [4])
    store.client.set(key, newer.tobytes())
    with pytest.raises(ForeignValueError, match="newer version"):
        store.read(1, [4])
    with pytest.raises(ForeignValueError, match="newer version"):
        store.write(1, [4], records_at([8]))


def test_markers_start_at_the_snapshot_and_move_forward_only(redis_server: redis.Redis) -> None:
    ready(redis_server)
    store = PackedStore(redis_server, KEYS, keys_per_script=2)
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 10}
    move = MarkerMove(1, 0, offset=15, expected=10)
    store.write(1, [1, 2, 3], records_at([13, 14, 15]), [move, MarkerMove(1, 1, offset=3)])
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 15, 1: 3}
    store.write(1, [1], records_at([12]), [MarkerMove(1, 0, offset=12, expected=10)])
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 15, 1: 3}
    assert {p: mark.offset for p, mark in store.markers(1, epoch=2).items()} == {}


def test_a_batch_of_rejected_events_still_moves_the_marker(redis_server: redis.Redis) -> None:
    ready(redis_server)
    store = PackedStore(redis_server, KEYS)
    landed = store.write(
        1, [], empty_records(0, STATE_FLOATS), [MarkerMove(1, 0, offset=11, expected=10)]
    )
    assert landed.shape == (0,)
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 11}


def test_a_store_restored_to_an_older_copy_is_noticed_before_anything_is_written(
    redis_server: redis.Redis,
) -> None:
    ready(redis_server)
    store = PackedStore(redis_server, KEYS, keys_per_script=2)
    with pytest.raises(StoreFellBehindError, match=r"marker 1:0 is at 10"):
        store.write(1, [1, 2, 3], records_at([21, 22, 23]), [MarkerMove(1, 0, 23, expected=20)])
    assert not store.read(1, [1, 2, 3])[1].any()
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 10}


def test_a_wiped_store_is_noticed_at_the_next_write(redis_server: redis.Redis) -> None:
    ready(redis_server)
    store = PackedStore(redis_server, KEYS)
    store.write(1, [1], records_at([11]), [MarkerMove(1, 0, 11, expected=10)])
    redis_server.flushall()
    with pytest.raises(EmptyStoreError, match="uic memories load"):
        store.write(1, [1], records_at([12]), [MarkerMove(1, 0, 12, expected=11)])
    assert redis_server.dbsize() == 0


def test_a_stream_does_not_write_into_a_generation_that_is_loading(store: PackedStore) -> None:
    with pytest.raises(GenerationStateError, match="is loading, a write needs ready"):
        store.write(1, [1], records_at([1]), [MarkerMove(1, 0, 11, expected=10)])


def test_memories_of_another_bundle_or_generation_are_refused(store: PackedStore) -> None:
    other = records_at([1])
    header_view(other)["bundle"] = np.void(b"bundle-2")
    with pytest.raises(GenerationStateError, match="bundle"):
        store.write(1, [1], other)
    other = records_at([1])
    header_view(other)["generation"] = 2
    with pytest.raises(GenerationStateError, match="generation 2"):
        store.write(1, [1], other)


def test_a_forgotten_user_does_not_come_back(store: PackedStore) -> None:
    store.write(1, [1, 2], records_at([1, 2]))
    generations = Generations(store.client, KEYS)
    assert generations.forget(2) == [1]
    assert generations.get(1).rows == 1
    assert store.write(1, [1, 2, 3], records_at([9, 9, 9])).tolist() == [True, False, True]
    assert store.read(1, [1, 2, 3])[1].tolist() == [True, False, True]


def test_vectors_have_no_generation_and_the_later_one_stays(redis_server: redis.Redis) -> None:
    store = PackedStore(redis_server, ViewKeys("test", "item_image"), layout=VECTOR)
    values = np.zeros((2, VECTOR_HEADER.itemsize + 4), dtype=np.uint8)
    header = values[:, : VECTOR_HEADER.itemsize].view(VECTOR_HEADER)[:, 0]
    header["magic"], header["version"], header["event_time_ms"] = b"UV", 1, [2000, 1000]
    assert store.write(NO_GENERATION, [1, 1], values).tolist() == [True, False]
    assert store.read(NO_GENERATION, [1])[0].tobytes() == values[0].tobytes()


def test_redis_down_is_one_typed_error() -> None:
    store = PackedStore(connect(Address("127.0.0.1", 1)), KEYS, address="127.0.0.1:1")
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1: .*uic store start"):
        store.read(1, [1])


def test_wrong_password_is_one_typed_error(redis_server: redis.Redis, store_address: str) -> None:
    redis_server.config_set("requirepass", "secret")
    try:
        for password in (None, "wrong"):
            client = connect(replace(Address.at(store_address), password=password))
            with pytest.raises(StoreAccessError, match="UIC_STORE__PASSWORD"):
                PackedStore(client, KEYS).read(1, [1])
            client.close()
    finally:
        redis_server.config_set("requirepass", "")


def test_a_read_only_store_is_one_typed_error(redis_server: redis.Redis) -> None:
    registered(redis_server)
    store = PackedStore(redis_server, KEYS)
    redis_server.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreReadOnlyError):
            store.write(1, [1], records_at([1]))
    finally:
        redis_server.execute_command("REPLICAOF", "NO", "ONE")
    assert not store.read(1, [1])[1].any()


def test_a_full_store_is_one_typed_error_and_no_marker_moves(redis_server: redis.Redis) -> None:
    ready(redis_server)
    store = PackedStore(redis_server, KEYS, keys_per_script=2)
    redis_server.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreFullError, match="maxmemory"):
            store.write(1, [1, 2, 3], records_at([11, 12, 13]), [MarkerMove(1, 0, 13, 10)])
    finally:
        redis_server.config_set("maxmemory", "0")
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 10}
    assert not store.read(1, [1, 2, 3])[1].any()


WRITES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(1, 2), st.integers(0, 2**40)),
            min_size=1,
            max_size=8,
        ),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=10,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(writes=WRITES)
def test_any_interleaving_leaves_the_memory_of_the_largest_position(
    redis_server: redis.Redis, writes: list[tuple[list[tuple[int, int, int]], int]]
) -> None:
    """Loads, stream writes, replays and zombies are all writes in some order."""
    redis_server.flushall()
    registered(redis_server)
    largest: dict[int, tuple[int, int]] = {}
    for batch, keys_per_script in writes:
        store = PackedStore(redis_server, KEYS, keys_per_script=keys_per_script)
        records = np.concatenate([records_at([offset], epoch) for _, epoch, offset in batch])
        store.write(1, [user for user, _, _ in batch], records)
        for user, epoch, offset in batch:
            largest[user] = max(largest.get(user, (0, 0)), (epoch, offset))
    records, found = PackedStore(redis_server, KEYS).read(1, list(largest))
    assert found.all()
    header = header_view(records)
    stored = zip(header["epoch"].tolist(), header["offset"].tolist(), strict=True)
    assert dict(zip(largest, stored, strict=True)) == largest
    expected = np.array([offset % 97 for _, offset in largest.values()])
    assert (state_view(records) == expected[:, None]).all()
    assert Generations(redis_server, KEYS).get(1).rows == len(largest)
