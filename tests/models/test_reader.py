"""Groups from Parquet to batches: every row once, in an order that a resume repeats."""

import dataclasses
import json
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic.models.errors import BadInputError, ManifestError
from uic.models.samples.groups import GroupBatch, concatenate, ranges
from uic.models.samples.reader import BatchPlan, SamplesReader

DAY = date(2024, 1, 1)


def as_rows(batch: GroupBatch) -> list[tuple]:
    """A batch as comparable rows: one an impression, with the history that it sees."""
    rows = []
    for group in range(batch.groups):
        start = batch.history_offsets[group]
        for index in range(*batch.impression_offsets[group : group + 2]):
            seen = slice(start, start + batch.history_lengths[index])
            rows.append(
                (
                    int(batch.user_ids[group]),
                    str(batch.days[group]),
                    int(batch.item_ids[index]),
                    int(batch.category_ids[index]),
                    int(batch.event_times_ms[index]),
                    bool(batch.labels[index]),
                    tuple(batch.history_item_ids[seen].tolist()),
                    tuple(batch.history_category_ids[seen].tolist()),
                    tuple(batch.history_times_ms[seen].tolist()),
                )
            )
    return rows


def expected_rows(rows: list[dict]) -> list[tuple]:
    """The same, read off the Python rows."""
    return [
        (
            row["user_id"],
            str(row["dt"]),
            row["item_ids"][i],
            row["category_ids"][i],
            row["event_times"][i],
            row["labels"][i],
            tuple(row["history_item_ids"][: row["history_lengths"][i]]),
            tuple(row["history_category_ids"][: row["history_lengths"][i]]),
            tuple(row["history_times"][: row["history_lengths"][i]]),
        )
        for row in rows
        for i in range(len(row["item_ids"]))
    ]


def test_a_group_comes_out_as_written(make_samples, make_row):
    rows = [make_row(7, DAY, [11, 12, 13], [(21, 1, 1), (22, 0, 2)])]
    (batch,) = SamplesReader(make_samples(rows, files=1)).batches(BatchPlan())
    assert batch.user_ids.tolist() == [7]
    # The third event is after the last impression that anybody asks for.
    assert batch.history_item_ids.tolist() == [11, 12]
    assert batch.history_category_ids.tolist() == [1, 2]
    assert batch.history_times_ms.tolist() == [0, 1000]
    assert batch.item_ids.tolist() == [21, 22]
    assert batch.labels.tolist() == [True, False]
    assert batch.history_lengths.tolist() == [1, 2]
    assert batch.files == ("bucket-00000.parquet",)


def test_an_epoch_holds_every_impression_once(make_samples, make_rows):
    rows = make_rows(60)
    reader = SamplesReader(make_samples(rows))
    plan = BatchPlan(batch_impressions=9, batch_events=40, buffer_groups=20)
    read = [row for batch in reader.batches(plan) for row in as_rows(batch)]
    assert sorted(read) == sorted(expected_rows(rows))


def test_workers_share_an_epoch(make_samples, make_rows):
    rows = make_rows(60)
    reader = SamplesReader(make_samples(rows))
    shares = [
        [r for b in reader.batches(BatchPlan(worker=w, workers=3)) for r in as_rows(b)]
        for w in range(3)
    ]
    assert all(shares)
    assert sorted(row for share in shares for row in share) == sorted(expected_rows(rows))


def test_days_are_filtered(make_samples, make_rows):
    rows = make_rows(60)
    reader = SamplesReader(make_samples(rows))
    last = date(2024, 1, 3)
    plan = BatchPlan(first=last, last=last)
    read = [row for batch in reader.batches(plan) for row in as_rows(batch)]
    assert sorted(read) == sorted(expected_rows([row for row in rows if row["dt"] == last]))
    assert reader.days() == [date(2024, 1, 1), date(2024, 1, 2), last]
    totals = reader.totals(plan)
    assert totals.impressions == len(read)
    assert totals.groups == 20
    assert totals.clicks == sum(row[5] for row in read)
    assert totals.events == sum(max(row["history_lengths"]) for row in rows if row["dt"] == last)


def test_a_resumed_epoch_continues_where_it_stopped(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(80)))
    plan = BatchPlan(batch_impressions=10, buffer_groups=25, seed=3)
    whole = [as_rows(batch) for batch in reader.batches(plan, epoch=1)]
    assert [as_rows(batch) for batch in reader.batches(plan, epoch=1, start=5)] == whole[5:]


def test_seed_and_epoch_change_the_order(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(80)))
    orders = [
        [as_rows(b) for b in reader.batches(BatchPlan(batch_impressions=10, seed=s), epoch=e)]
        for s, e in ((0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_batches_keep_their_limits_and_lengths_are_alike(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(200, longest=50), row_group_size=50))
    plan = BatchPlan(batch_impressions=20, batch_events=120)
    spreads = []
    for batch in reader.batches(plan):
        assert batch.groups == 1 or batch.impressions <= 20
        assert batch.groups == 1 or batch.events <= 120
        lengths = np.diff(batch.history_offsets)
        spreads.append(lengths.max() - lengths.min())
    assert np.median(spreads) <= 3


def test_ungrouped_sees_the_same(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(30)))
    for batch in reader.batches(BatchPlan(batch_impressions=20)):
        single = batch.ungrouped()
        assert single.groups == single.impressions == batch.impressions
        assert as_rows(single) == as_rows(batch)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5))))
def test_ranges_is_a_concatenation_of_aranges(pairs):
    starts = np.array([start for start, _ in pairs], dtype=np.int64)
    lengths = np.array([length for _, length in pairs], dtype=np.int64)
    expected = [start + step for start, length in pairs for step in range(length)]
    assert ranges(starts, lengths).tolist() == expected


def test_concatenate_keeps_rows(make_samples, make_rows):
    batches = list(SamplesReader(make_samples(make_rows(20))).batches(BatchPlan(buffer_groups=1)))
    assert len(batches) > 1
    assert as_rows(concatenate(batches)) == [row for batch in batches for row in as_rows(batch)]


def test_a_directory_without_manifest_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"manifest\.json: missing"):
        SamplesReader(tmp_path)


def test_another_schema_version_is_refused(make_samples, make_rows):
    root = make_samples(make_rows(3), version=99)
    with pytest.raises(ManifestError, match="schema_version is 99, this code reads 1"):
        SamplesReader(root)


def _replace_file(root, table):
    """Swap a file behind the manifest's back, padded to the size that the manifest states."""
    path = root / "bucket-00000.parquet"
    pq.write_table(table, path)
    manifest = root / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"][0]["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(document))


def test_a_missing_column_is_named(make_samples, make_rows):
    root = make_samples(make_rows(4), files=1)
    _replace_file(root, pq.read_table(root / "bucket-00000.parquet").drop_columns(["labels"]))
    with pytest.raises(BadInputError, match=r"bucket-00000\.parquet: column labels is missing"):
        SamplesReader(root)


def test_a_column_of_another_type_is_named(make_samples, make_rows):
    root = make_samples(make_rows(4), files=1)
    table = pq.read_table(root / "bucket-00000.parquet")
    floats = table.column("user_id").cast(pa.float64())
    _replace_file(root, table.set_column(0, "user_id", floats))
    with pytest.raises(BadInputError, match="column user_id is double, expected int64"):
        SamplesReader(root)


def test_a_damaged_file_is_named(make_samples, make_rows):
    root = make_samples(make_rows(4), files=1)
    path = root / "bucket-00000.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(BadInputError, match=r"bucket-00000\.parquet: not readable as Parquet"):
        SamplesReader(root)


def test_a_history_length_beyond_the_history_is_named(make_samples, make_row):
    root = make_samples([make_row(1, DAY, [1, 2], [(5, 1, 3)])], files=1)
    with pytest.raises(BadInputError, match="history_lengths: 3 where the history has 2 events"):
        list(SamplesReader(root).batches(BatchPlan()))


def test_lists_that_are_not_parallel_are_named(make_samples, make_row):
    row = make_row(1, DAY, [1, 2], [(5, 1, 1)])
    row["history_category_ids"] = [1]
    root = make_samples([row], files=1)
    with pytest.raises(BadInputError, match=r"history_category_ids has 1 entries and .* 2"):
        list(SamplesReader(root).batches(BatchPlan()))


def test_a_batch_is_plain_numpy(make_samples, make_rows):
    (batch,) = SamplesReader(make_samples(make_rows(5))).batches(BatchPlan())
    dtypes = {
        field.name: str(getattr(batch, field.name).dtype)
        for field in dataclasses.fields(batch)
        if field.name not in {"files", "features", "extra_labels", "history_columns"}
    }
    assert dtypes["labels"] == "bool"
    assert dtypes["days"] == "datetime64[D]"
    assert dtypes["history_behaviors"] == "int8"
    others = {name for name, kind in dtypes.items() if kind != "int64"}
    assert others == {"labels", "days", "history_behaviors"}
