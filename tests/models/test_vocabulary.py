"""Ids to rows: known ids have their own, all others share the spare ones."""

from datetime import date

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import (
    IdTable,
    Vocabulary,
    VocabularyError,
    build_vocabulary,
    load_vocabulary,
)

IDS = st.integers(-(2**63), 2**63 - 1)


@given(st.sets(IDS, max_size=20), st.lists(IDS, max_size=20))
def test_known_ids_have_their_rank_and_others_a_spare_row(known, asked):
    ordered = sorted(known)
    table = IdTable(np.array(ordered, dtype=np.int64), spare_rows=3)
    rows = table.lookup(np.array([*ordered, *asked], dtype=np.int64))
    assert rows[: len(ordered)].tolist() == list(range(len(ordered)))
    for asked_id, row in zip(asked, rows[len(ordered) :].tolist(), strict=True):
        if asked_id in known:
            assert row == ordered.index(asked_id)
        else:
            assert len(ordered) <= row < table.rows


@given(st.sets(st.integers(0, 200), min_size=1), st.lists(st.integers(-300, 300)))
def test_a_direct_table_and_a_search_agree(known, asked):
    ids = np.array(sorted(known), dtype=np.int64)
    dense = IdTable(ids, spare_rows=2)
    # One far id makes the span too wide for a direct table.
    sparse = IdTable(np.append(ids, 2**62), spare_rows=2)
    wanted = np.array(asked, dtype=np.int64)
    seen = np.isin(wanted, ids)
    assert dense.lookup(wanted)[seen].tolist() == sparse.lookup(wanted)[seen].tolist()
    assert (dense.lookup(wanted)[~seen] >= len(ids)).all()


def test_an_unseen_id_has_one_row_for_ever():
    table = IdTable(np.array([5], dtype=np.int64), spare_rows=64)
    assert table.lookup(np.array([12345, 12345, 99])).tolist() == [46, 46, 37]


def test_rare_ids_share_the_spare_rows(make_samples, make_row):
    shown = [(50, 1, 3), (51, 0, 3)]
    rows = [make_row(1, date(2024, 1, 1), [7, 7, 8], shown)]
    batches = SamplesReader(make_samples(rows, files=1)).batches(BatchPlan())
    vocabulary = build_vocabulary(batches, 2, 4, 2)
    assert vocabulary.item.ids.tolist() == [7]
    # Categories 7, 7, 8, 0, 1.
    assert vocabulary.category.ids.tolist() == [7]
    assert (vocabulary.item.rows, vocabulary.category.rows) == (5, 3)


def test_a_vocabulary_survives_its_file(tmp_path):
    path = tmp_path / "vocabulary.parquet"
    vocabulary = Vocabulary(IdTable(np.array([-4, 9]), 2), IdTable(np.array([3]), 1))
    vocabulary.save(path)
    loaded = load_vocabulary(path, 2, 1)
    assert loaded.item.ids.tolist() == [-4, 9]
    assert loaded.category.ids.tolist() == [3]
    assert (loaded.item.rows, loaded.category.rows) == (4, 2)


def test_rows_that_are_not_ranks_are_refused(tmp_path):
    path = tmp_path / "vocabulary.parquet"
    Vocabulary(IdTable(np.array([4, 9]), 2), IdTable(np.array([3]), 1)).save(path)
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(VocabularyError, match="rows of the item table are not the ranks"):
        load_vocabulary(path, 2, 1)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "vocabulary.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(VocabularyError, match=r"vocabulary\.parquet: not readable as Parquet"):
        load_vocabulary(path, 2, 1)
