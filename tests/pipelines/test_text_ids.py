"""Text ids of a log: the number of a text, and the text of a number."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import run
from uic.models.errors import BadInputError
from uic.models.published import write_json_atomically
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.forgetting import forget_in_log
from uic.pipelines.log.text_ids import (
    FoundId,
    TextIds,
    TextIdsError,
    category_number_of,
    number_of,
)

ODD = "ä / <script>alert(1)</script> " + "x" * 200


def imported(folder: Path, *rows: str, name: str = "a", texts: tuple[str, ...] = ("user", "item")):
    """A log with rows of user, item, category."""
    file = folder / f"{name}.csv"
    file.write_text("u,i,c,t\n" + "".join(f"{row},{n}\n" for n, row in enumerate(rows)))
    log = EventLog(folder / "log")
    columns = TableColumns("u", "i", "t", category_id="c", string_ids=frozenset(texts))
    run(TableImporter(file, columns, name), log)
    return log


def changed(log: EventLog, kind: str, ids: list[int], texts: list[str]) -> Path:
    """Another table of a kind, in the place of the log's."""
    path = log.ids_file(kind)
    assert path is not None
    pq.write_table(pa.table({"id": ids, "text": texts}), path)
    for number, manifest in enumerate(log.manifests()):
        for entry in manifest["files"]:
            if log.root / entry["path"] == path:
                entry["bytes"] = path.stat().st_size
                name = log._document()["manifests"][number]
                write_json_atomically(log.root / "manifests" / name, manifest)
    return path


def test_a_log_of_texts_has_a_number_for_every_text_and_a_text_for_every_number(tmp_path):
    ids = TextIds.of(imported(tmp_path, f"{ODD},007,3", f"{ODD},7,3"))
    assert [ids.are_texts(kind) for kind in ("user", "item", "category")] == [True, True, False]
    assert ids.number("user", ODD) == number_of(ODD)
    assert ids.number("user", "nobody here") == number_of("nobody here")
    assert ids.number("user", 17) == 17
    with pytest.raises(TextIdsError, match="no UTF-8 text"):
        ids.number("user", "\udcff")
    assert number_of("007") != number_of("7")
    numbers = [number_of("7"), number_of("007"), 5]
    assert ids.said("item", numbers) == ["7", "007", "5"]
    assert ids.pairs("user", [number_of(ODD), 5]) == {number_of(ODD): ODD}
    assert ids.said("category", [3, 4]) == [3, 4]


def test_a_log_of_numbers_takes_and_gives_numbers(tmp_path):
    ids = TextIds.of(imported(tmp_path, "1,2,3", texts=()))
    with pytest.raises(TextIdsError, match="its ids are numbers"):
        ids.find_text("17")
    assert (ids.number("user", "17"), ids.said("item", [2])) == (17, [2])
    for said, fault in (("ann", "ids of .* are numbers"), ("-1", "are numbers"), (2**63, "no id")):
        with pytest.raises(TextIdsError, match=fault):
            ids.number("user", said)


def test_an_empty_log_has_numbers(tmp_path):
    assert TextIds.of(EventLog(tmp_path / "log")).number("user", "17") == 17


def test_a_text_is_found_in_the_kinds_that_have_it(tmp_path):
    ids = TextIds.of(imported(tmp_path, "ann,x,hats", texts=("user", "item", "category")))
    hats, new = category_number_of("hats"), number_of("new")
    assert ids.find_text("ann") == [FoundId("user", "ann", number_of("ann"), in_log=True)]
    assert ids.find_text("hats") == [FoundId("category", "hats", hats, in_log=True)]
    assert ids.find_text("new") == [
        FoundId("user", "new", new, in_log=False),
        FoundId("item", "new", new, in_log=False),
        FoundId("category", "new", new >> 32, in_log=False),
    ]
    assert ids.find_number(hats) == ids.find_text("hats")
    with pytest.raises(TextIdsError, match="user '': an id has at least one character"):
        ids.find_text("")
    with pytest.raises(TextIdsError, match=r"number 12: no user, item, category of .* has it"):
        ids.find_number(12)


def test_a_category_keeps_the_number_that_its_import_gave_it(tmp_path):
    log = imported(tmp_path, "1,2,hats", texts=("category",))
    changed(log, "category", [12], ["hats"])
    ids = TextIds.of(log)
    assert ids.number("category", "hats") == 12
    assert ids.number("category", "lamps") == category_number_of("lamps")


def test_a_table_of_other_numbers_is_refused_where_it_is_opened_and_where_it_is_added_to(tmp_path):
    log = imported(tmp_path, "ann,x,3")
    path = changed(log, "user", [5], ["ann"])
    said = f"{path}: user 'ann' has number 5, its text gives {number_of('ann')}: "
    with pytest.raises(TextIdsError) as refused:
        TextIds.of(log)
    assert str(refused.value).startswith(said)
    before = log.manifests()
    with pytest.raises(TextIdsError, match="'ann' has number 5"):
        imported(tmp_path, "bob,x,3", name="b")
    assert log.manifests() == before


def test_two_texts_with_one_number_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("uic.pipelines.importers.string_ids.number_of", len)
    with pytest.raises(BadInputError, match="user ids 'ann' and 'bob' have one number; rename"):
        imported(tmp_path, "ann,x,3", "bob,x,3")
    assert not EventLog(tmp_path / "log").manifests()


def test_a_log_whose_last_user_is_forgotten_still_takes_texts(tmp_path):
    log = imported(tmp_path, "ann,x,3", "ann,y,3")
    assert forget_in_log(log, np.array([number_of("ann")])) == 3  # two events, and the text
    ids = TextIds.of(log)
    assert ids.are_texts("user")
    assert ids.said("user", [number_of("ann")]) == [str(number_of("ann"))]
    again = TextIds.of(imported(tmp_path, "bob,x,3", name="b"))
    assert again.pairs("user", [number_of("ann"), number_of("bob")]) == {number_of("bob"): "bob"}


@pytest.mark.parametrize("number", [-1, 2**63, 10**30])
def test_a_number_that_is_no_id_is_said_to_be_none(tmp_path, number):
    ids = TextIds.of(imported(tmp_path, "ann,x,3"))
    with pytest.raises(TextIdsError, match=rf"{number}: no id; expected 0 to 2\^63 - 1"):
        ids.find_number(number)


def test_a_user_of_very_many_digits_is_refused_as_any_text_is():
    with pytest.raises(TextIdsError, match="are numbers; expected"):
        TextIds().number("user", "9" * 5000)
