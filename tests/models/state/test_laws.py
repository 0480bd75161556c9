"""The laws of every part, the package's own and an example's: a new kind is held by them, too."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.state.logs import BEGIN_MS, DAY_MS, EVERY_KIND, random_events
from uic.models.state.definition import KINDS, StateDefinition
from uic.models.state.part import Asked, Cuts, StatePart

EXAMPLES = Path(__file__).parents[3] / "examples"


def with_the_example() -> StateDefinition:
    """Every kind of the package, and the example of a part of somebody's own."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        parts = {**EVERY_KIND["parts"], "hours": {"kind": "own_part:Hours", "slots": 12}}
        return StateDefinition.of_document({"version": 1, "parts": parts}, "test")
    finally:
        sys.path.remove(str(EXAMPLES))


STATE = with_the_example()
NAMES = [part.name for part in STATE.parts]
USERS = 6


def fresh(part: StatePart, users: int = USERS):
    return np.repeat(part.fresh()[None], users, axis=0)


def part_called(name: str) -> StatePart:
    return next(part for part in STATE.parts if part.name == name)


def questions(seed: int, rows: int = 40) -> Asked:
    draw = np.random.default_rng(seed)
    return Asked(
        draw.integers(0, USERS, rows),
        BEGIN_MS + draw.integers(0, 500 * DAY_MS, rows),
        draw.integers(0, 30, rows),
        draw.integers(0, 9, rows),
        {"shop": draw.integers(0, 8, rows)},
    )


def test_every_kind_is_held_by_the_laws() -> None:
    assert {type(part) for part in STATE.parts} > set(KINDS.values())


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_folding_in_pieces_gives_the_bytes_of_folding_at_once(name, seed, cut) -> None:
    part, events = part_called(name), random_events(seed)
    whole, pieces = fresh(part), fresh(part)
    part.fold(whole, events)
    # In another order of users, too: a stream has them interleaved.
    order = np.argsort(np.random.default_rng(seed).random(len(events)), kind="stable")
    order = order[np.argsort(events.offsets[order] // 3, kind="stable")]
    order = order[np.lexsort((events.offsets[order],))] if seed % 2 else np.arange(len(events))
    at = int(cut * len(events))
    part.fold(pieces, events.select(order[:at]))
    part.fold(pieces, events.select(order[at:]))
    assert whole.tobytes() == pieces.tobytes()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_a_users_bytes_depend_on_no_other_user(name, seed) -> None:
    part, events = part_called(name), random_events(seed)
    together = fresh(part)
    part.fold(together, events)
    for user in range(USERS):
        alone = fresh(part)
        part.fold(alone, events.select(events.user_index == user))
        assert alone[user].tobytes() == together[user].tobytes()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_a_read_changes_nothing_and_event_times_say_nothing(name, seed) -> None:
    part, events = part_called(name), random_events(seed)
    states, other = fresh(part), fresh(part)
    part.fold(states, events)
    before = states.tobytes()
    part.features(states, questions(seed))
    assert states.tobytes() == before
    moved = events.event_times_ms[::-1].copy()
    part.fold(other, type(events)(**{**vars(events), "event_times_ms": moved}))
    assert other.tobytes() == before


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_walk_gives_what_fold_and_read_give(name, seed) -> None:
    part, events, asked = part_called(name), random_events(seed), questions(seed)
    draw = np.random.default_rng(seed)
    starts = np.searchsorted(events.user_index, np.arange(USERS + 1))
    begin, end = starts[asked.owners], starts[asked.owners + 1]
    seen = begin + (draw.random(len(asked)) * (end - begin + 1)).astype(np.int64)
    only = StateDefinition((part,))
    walked = only.as_of(events, asked, seen)
    in_rounds = as_base_class(part, events, asked, seen, begin)
    for row in range(len(asked)):
        states = fresh(part)
        part.fold(states, events.select(np.arange(begin[row], seen[row])))
        read = part.features(states, asked.select(np.array([row])))
        np.testing.assert_array_equal(walked[row], read[0])
        np.testing.assert_array_equal(in_rounds[row], read[0])


def as_base_class(part, events, asked, seen, begin):
    """The walk that a part of somebody's own gets from its base class."""
    order = np.lexsort((seen, asked.owners))
    owners, ends = asked.owners[order], seen[order]
    begins = np.where(np.diff(owners, prepend=-1) != 0, begin[order], np.r_[0, ends[:-1]])
    found = np.empty((len(asked), len(part.described)), np.float32)
    found[order] = StatePart.walk(
        part, fresh(part), events, asked.select(order), Cuts(begins, ends)
    )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_user_has_features_and_bytes_are_a_multiple_of_8(name) -> None:
    part = part_called(name)
    assert part.bytes % 8 == 0
    assert part.fresh().shape == (part.bytes,)
    said = part.features(fresh(part), questions(1))
    assert said.shape == (40, len(part.described))
    assert said.dtype == np.float32
    assert not np.isinf(said).any()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_a_spoilt_state_reads_and_writes_no_other_memory(name, seed) -> None:
    """Bytes of a damaged record may say anything, and still harm no other user's."""
    part, events = part_called(name), random_events(seed)
    draw = np.random.default_rng(seed)
    states = draw.integers(0, 256, (USERS + 2, part.bytes)).astype(np.uint8)
    before = states.copy()
    part.features(states[1:-1], questions(seed))
    part.fold(states[1:-1], events)
    np.testing.assert_array_equal(states[[0, -1]], before[[0, -1]])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_part_does_not_declare_is_not_read(name) -> None:
    part, events = part_called(name), random_events(3)
    states, other = fresh(part), fresh(part)
    part.fold(states, events)
    left = {key: values for key, values in events.columns.items() if key in part.reads}
    part.fold(other, type(events)(**{**vars(events), "columns": left}))
    assert states.tobytes() == other.tobytes()
