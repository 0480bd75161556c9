"""Where a run starts, and when it refuses to."""

from dataclasses import replace

import pytest

from uic.feature_repo.store.generation import Generation
from uic.jobs.stream.run.start_positions import (
    Available,
    StartPositionError,
    check_epochs_before,
    choose_starts,
    summary,
)
from uic.pipelines.log.epochs import Epoch

IMPORT = Epoch(1, "import", "history", 2, {0: 0, 1: 0}, {0: 99, 1: 49})
TOPIC = Epoch(2, "topic", "behaviours.abc", 2, {0: 10, 1: 20}, {0: 9, 1: 19})
SOURCE = Available({0: 10, 1: 20}, {0: 500, 1: 500}, "topic behaviours")


def _generation(positions):
    return Generation(
        number=3,
        rows_expected=0,
        bundle=b"12345678",
        bundle_name="mimn/1",
        record_bytes=1276,
        positions=positions,
        snapshot="",
    )


def _starts(marks, positions=None, *, archived=None, source=SOURCE, accept_loss=False):
    starts = choose_starts(
        _generation(positions or {}), marks, TOPIC, source, archived or {}, accept_loss=accept_loss
    )
    return [(start.offset, start.why) for start in starts]


def test_it_starts_after_the_stores_marker():
    assert _starts({2: {0: 99, 1: 30}}) == [
        (100, "after the store's marker"),
        (31, "after the store's marker"),
    ]


def test_a_loaded_generation_starts_after_its_snapshot():
    assert _starts({2: {0: 99, 1: 30}}, {2: {0: 99, 1: 30}}) == [
        (100, "after the snapshot's position"),
        (31, "after the snapshot's position"),
    ]


def test_a_new_epoch_starts_at_its_first_event():
    reason = "earliest: the generation has nothing of this epoch"
    assert _starts({1: {0: 99, 1: 49}}) == [(10, reason), (20, reason)]


def test_it_starts_where_the_archive_ends_if_that_is_earlier():
    starts = _starts({2: {0: 99, 1: 30}}, archived={0: 80, 1: 40})
    assert [offset for offset, _ in starts] == [80, 31]
    assert "archive goes on" in starts[0][1]


def test_retention_that_has_eaten_the_start_is_refused_with_both_offsets():
    eaten = Available({0: 150, 1: 20}, {0: 500, 1: 500}, "topic behaviours")
    with pytest.raises(StartPositionError, match=r"partition 0.*offset 100.*left 150.*50 events"):
        _starts({2: {0: 99, 1: 30}}, source=eaten)


def test_a_loss_can_be_accepted():
    eaten = Available({0: 150, 1: 20}, {0: 500, 1: 500}, "topic behaviours")
    starts = _starts({2: {0: 99, 1: 30}}, source=eaten, accept_loss=True)
    assert starts[0] == (150, "events 100 to 149 are lost, as accepted")


def test_a_loss_that_was_accepted_before_needs_no_second_word():
    eaten = Available({0: 150, 1: 20}, {0: 500, 1: 500}, "topic behaviours")
    epoch = replace(TOPIC, losses=((0, 90, 120), (0, 121, 149)))
    marks = {2: {0: 99, 1: 30}}
    (start, _) = choose_starts(_generation({}), marks, epoch, eaten, {}, accept_loss=False)
    assert (start.offset, start.lost) == (150, (100, 149))
    epoch = replace(TOPIC, losses=((0, 90, 120),))
    with pytest.raises(StartPositionError, match="retention has left 150"):
        choose_starts(_generation({}), marks, epoch, eaten, {}, accept_loss=False)


def test_what_only_the_archive_lacks_is_no_loss():
    eaten = Available({0: 90, 1: 20}, {0: 500, 1: 500}, "topic behaviours")
    starts = _starts({2: {0: 99, 1: 30}}, source=eaten, archived={0: 80})
    assert starts[0][0] == 90


def test_a_source_that_ends_before_the_marker_is_another_one():
    short = Available({0: 10, 1: 20}, {0: 50, 1: 500}, "topic behaviours")
    with pytest.raises(StartPositionError, match=r"ends before offset 50.*folded up to 99"):
        _starts({2: {0: 99, 1: 30}}, source=short)


def test_an_epoch_before_must_be_folded_to_its_end():
    check_epochs_before(_generation({}), {1: {0: 99, 1: 49}}, [IMPORT, TOPIC], TOPIC)
    with pytest.raises(StartPositionError, match=r"epoch 1.*partition 1.*offset 48.*up to 49"):
        check_epochs_before(_generation({}), {1: {0: 99, 1: 48}}, [IMPORT, TOPIC], TOPIC)
    with pytest.raises(StartPositionError, match=r"partition 0.*offset -1.*up to 99"):
        check_epochs_before(_generation({}), {}, [IMPORT, TOPIC], TOPIC)


def test_the_summary_has_a_line_a_reason():
    starts = choose_starts(_generation({}), {2: {0: 99}}, TOPIC, SOURCE, {}, accept_loss=False)
    assert summary(starts) == [
        "partition 0: from offset 100 (after the store's marker)",
        "partition 1: from offset 20 (earliest: the generation has nothing of this epoch)",
    ]
