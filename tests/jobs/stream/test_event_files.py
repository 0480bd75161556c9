"""Event files: what they refuse, and that a file is read as it was written."""

import gzip

import pytest

from uic.jobs.stream.topics.event_files import (
    EventFile,
    LoggedPayload,
    read_lines,
    scan_event_file,
    scan_folder,
    stage_file,
    write_event_file,
)
from uic.models.errors import BadInputError


def _rows(partition: int, first: int, count: int) -> list[LoggedPayload]:
    return [
        LoggedPayload(b"\xff %d" % offset, partition, offset, 1_700_000_000_123 + offset)
        for offset in range(first, first + count)
    ]


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [*_rows(1, 5, 3), LoggedPayload(None, 1, 8, 0)]
    assert write_event_file(tmp_path / "a.jsonl.gz", rows) == 4
    assert list(read_lines(tmp_path / "a.jsonl.gz")) == rows
    assert scan_event_file(tmp_path / "a.jsonl.gz") == EventFile(tmp_path / "a.jsonl.gz", 1, 5, 8)


def test_a_line_is_what_flink_reads():
    from uic.jobs.stream.topics.event_files import line_of

    assert line_of(LoggedPayload(b"{}", 3, 42, 1_700_000_000_123)) == (
        b'{"payload":"e30=","log_partition":3,"log_offset":42,'
        b'"log_time":"2023-11-14T22:13:20.123Z"}\n'
    )


def test_same_rows_same_bytes(tmp_path):
    write_event_file(tmp_path / "a.jsonl.gz", _rows(0, 0, 9))
    write_event_file(tmp_path / "b.jsonl.gz", _rows(0, 0, 9))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_files_of_a_partition_are_ordered_and_joined(tmp_path):
    write_event_file(tmp_path / "z.jsonl.gz", _rows(0, 0, 2))
    write_event_file(tmp_path / "a.jsonl.gz", _rows(0, 2, 2))
    files = scan_folder(tmp_path)[0]
    assert [file.first for file in files] == [0, 2]
    stage_file(tmp_path / "joined", files)
    with gzip.open(tmp_path / "joined") as stream:
        assert len(stream.readlines()) == 4


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (_rows(0, 5, 1), "starts at offset 5.*ends at 1; expected 2"),
        (_rows(0, 1, 2), "starts at offset 1.*ends at 1; expected 2"),
    ],
)
def test_a_gap_or_an_overlap_is_refused(tmp_path, second, text):
    write_event_file(tmp_path / "a.jsonl.gz", _rows(0, 0, 2))
    write_event_file(tmp_path / "b.jsonl.gz", second)
    with pytest.raises(BadInputError, match=text):
        scan_folder(tmp_path)


def test_two_partitions_in_one_file_are_refused(tmp_path):
    write_event_file(tmp_path / "a.jsonl.gz", [*_rows(0, 0, 1), *_rows(1, 1, 1)])
    with pytest.raises(BadInputError, match="partitions 0 and 1 in one file"):
        scan_folder(tmp_path)


def test_a_cut_off_file_is_refused(tmp_path):
    write_event_file(tmp_path / "a.jsonl.gz", _rows(0, 0, 500))
    whole = (tmp_path / "a.jsonl.gz").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(BadInputError, match=r"a\.jsonl\.gz: line"):
        scan_folder(tmp_path)


def test_a_broken_line_is_named(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as stream:
        stream.write(b'{"payload":"e30=","log_partition":0}\n')
    with pytest.raises(BadInputError, match=r"line 1: .*log_offset"):
        scan_folder(tmp_path)


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(BadInputError, match="no such folder"):
        scan_folder(tmp_path / "nowhere")
