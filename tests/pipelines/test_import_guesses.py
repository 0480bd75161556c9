"""What is told of a table before its import: columns by name, times, days, ids that are texts."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.models.errors import BadInputError
from uic.pipelines.importers.guesses import guess_behavior, guess_columns, guess_time_unit
from uic.pipelines.importers.survey import TableLook, first_values, open_look, survey
from uic.pipelines.importers.text import TextForm


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "timestamp visitorid event itemid transactionid",
            {"user_id": "visitorid", "item_id": "itemid", "event_time": "timestamp",
             "behavior": "event"},
        ),
        (
            "CustomerID StockCode InvoiceDate Country",
            {"user_id": "CustomerID", "item_id": "StockCode", "event_time": "InvoiceDate",
             "user_feature": "Country"},
        ),
        (
            "event_time event_type product_id category_id category_code brand price user_id",
            {"user_id": "user_id", "item_id": "product_id", "event_time": "event_time",
             "category_id": "category_id", "behavior": "event_type", "item_feature": "brand price"},
        ),
        (
            "user user.id item item.id at clicked position event",
            {"user_id": "user.id", "item_id": "item.id", "event_time": "at", "clicked": "clicked",
             "context": "position"},
        ),
        ("user_id user_id item_id", {"item_id": "item_id"}),
        ("a b c", {}),
    ],
)  # fmt: skip
def test_columns_are_known_by_the_names_that_people_give(
    names: str, expected: dict[str, str]
) -> None:
    guess = guess_columns(names.split())
    assert {role: " ".join(columns) for role, columns in guess.items()} == expected


WORDS = ["view", "buy", "add to cart", "search"]
KINDS = ["book", "shoe", "view", "lamp"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"what": WORDS}, {"behavior": "what"}),
        ({"what": KINDS}, {}),
        ({"what": [*WORDS, *(f"{number}" for number in range(9))]}, {}),
        ({"place": ["cart", "home", "list"], "what": WORDS}, {"behavior": "what"}),
        ({"event": ["login"], "what": WORDS}, {"behavior": "what"}),
        ({"event": ["login", "view"], "what": WORDS}, {"behavior": "event"}),
        ({"event": ["login"], "what": KINDS}, {"behavior": "event"}),
        ({"clicked": ["0", "1"], "what": WORDS}, {"clicked": "clicked"}),
        ({"when": ["2025-03-01 10:00"]}, {"event_time": "when"}),
        ({"when": ["14.03.2011 08:26"]}, {"event_time": "when"}),
        ({"order": ["1004856"], "when": ["1740821400"]}, {"event_time": "when"}),
        ({"order": ["20250301", "20250302"]}, {}),
        ({"order": ["9999999999"]}, {}),
        ({"order": ["7", "1740821400"]}, {}),
        ({"no": ["1500000000"], "then": ["2025-03-01 10:00"]}, {"event_time": "then"}),
        ({"sent": ["2025-03-01"], "seen": ["2025-03-02 10:00"]}, {"event_time": "seen"}),
        ({"sent": ["2025-03-01"], "received": ["2025-03-02"]}, {}),
        ({"born": ["1974-03-01"]}, {}),
        ({"when": []}, {}),
        ({"when": ["2025-03-01"], "time": ["noon"]}, {"event_time": "time"}),
    ],
)
def test_values_say_what_no_name_says(
    values: dict[str, list[str]], expected: dict[str, str]
) -> None:
    guess = guess_columns(list(values), values)
    assert {role: " ".join(columns) for role, columns in guess.items()} == expected


@pytest.mark.parametrize(
    ("words", "unit"),
    [
        (["1740821400", "1740821401"], "s"),
        (["1740821400.25"], "s"),
        (["1740821400000"], "ms"),
        (["1740821400000000"], "us"),
        (["1740821400000000000"], "ns"),
        (["20250301"], "iso"),
        (["2025-03-01", "2025-03-01T10:00:00Z", "2025-03-01 10:00"], "iso"),
        (["2025-03-01 8:00:00"], "%Y-%m-%d %H:%M:%S"),
        (["3/14/2011 8:26"], "%m/%d/%Y %H:%M"),
        (["14.03.2011"], "%d.%m.%Y"),
    ],
)
def test_a_unit_is_told_by_the_values(words: list[str], unit: str) -> None:
    assert guess_time_unit("t.csv: column time", words) == unit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1", "2"], "'1' is no time that can be told; say --time-unit with a unit"),
        (["monday"], "'monday' is no time that can be told; say --time-unit with a unit"),
        (["03/04/2011"], "say --time-unit with '%m/%d/%Y' or '%d/%m/%Y'"),
    ],
)
def test_a_time_that_cannot_be_told_is_asked_about(words: list[str], said: str) -> None:
    with pytest.raises(BadInputError) as raised:
        guess_time_unit("t.csv: column time", words)
    assert str(raised.value).startswith("t.csv: column time: ")
    assert said in str(raised.value)


def test_words_for_behaviours() -> None:
    said = ["view", "add_to_cart", "PURCHASE", "fav", "login"]
    assert [guess_behavior(word) for word in said] == ["click", "cart", "buy", "favourite", None]


def look(path: Path, form: TextForm | None = None) -> TableLook:
    return open_look(path, form or TextForm(), any_separator=form is None)


def write(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", ["::", "\t", ";", "|", ","])
def test_the_separator_is_found(separator: str, tmp_path: Path) -> None:
    path = write(tmp_path, separator.join(["user", "item", "time"]) + "\n")
    found = look(path)
    assert (found.names, found.form.delimiter) == (["user", "item", "time"], separator)


def test_the_separator_is_found_without_a_header(tmp_path: Path) -> None:
    found = open_look(
        write(tmp_path, "1::2::3\n"), TextForm(header=False, names=("a", "b", "c")),
        any_separator=True,
    )  # fmt: skip
    assert (found.names, found.form.delimiter) == (["a", "b", "c"], "::")


def test_the_folder_of_a_day_is_a_column(tmp_path: Path) -> None:
    (tmp_path / "day=2025-03-01").mkdir()
    write(tmp_path / "day=2025-03-01", "user,item\n1,2\n")
    assert look(tmp_path).names == ["user", "item", "day"]


def test_the_first_values_are_words_of_columns_that_are_there_once(tmp_path: Path) -> None:
    rows = "u,view,1,2\nu,buy,1,2\nv, view ,NULL,2\n"
    table = look(write(tmp_path, f"user,what,n,n\n{rows}"))
    assert first_values(table) == {"user": ["u", "v"], "what": ["view", "buy"]}


def test_a_column_of_lists_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"who": {"id": "u"}, "what": "view", "tags": ["a"], "share": 0.5}\n' * 2)
    assert first_values(look(path)) == {"who.id": ["u"], "what": ["view"]}


IDS = {"user": "user", "item": "item"}


@pytest.mark.parametrize(
    ("users", "text"),
    [
        (["1", "2"], None),
        (["1.0", "", "2.0"], None),
        (["1", "\\N", "NULL"], None),
        (["1", "007"], "007"),
        (["1", "anonymous"], "anonymous"),
        (["99999999999999999999"], "99999999999999999999"),
    ],
)
def test_one_id_that_is_a_text_makes_texts_of_all(
    users: list[str], text: str | None, tmp_path: Path
) -> None:
    lines = "".join(f"{user},1,1740821400\n" for user in users)
    found = survey(look(write(tmp_path, f"user,item,time\n{lines}")), IDS, "time")
    assert found.text_ids == ({} if text is None else {"user": text})


def test_days_are_of_all_rows_in_the_zone(tmp_path: Path) -> None:
    rows = "1,1,2025-03-01T23:30:00Z\n1,1,2025-03-04T10:00:00Z\n1,1,2099-01-01T00:00:00Z\n"
    table = look(write(tmp_path, f"user,item,time\n{rows}"))
    found = survey(table, IDS, "time", zone="Asia/Shanghai")
    assert (found.first, found.last) == (date(2025, 3, 2), date(2025, 3, 4))
    assert (found.time_unit, found.no_zone) == ("iso", False)


def test_times_without_a_zone_are_found(tmp_path: Path) -> None:
    found = survey(look(write(tmp_path, "user,item,time\n1,2,2025-03-01 10:00\n")), IDS, "time")
    assert found.no_zone


def test_a_parquet_file_says_its_types(tmp_path: Path) -> None:
    times = pa.array([1740821400000], pa.timestamp("ms", "UTC"))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"user": ["u"], "item": [1], "time": times}), path)
    found = survey(look(path), IDS, "time")
    assert (found.typed, found.time_unit, found.text_ids) == (True, None, {"user": "u"})


def test_no_time_that_can_be_true_is_refused(tmp_path: Path) -> None:
    table = look(write(tmp_path, "user,item,time\n1,2,1740821400\n"))
    with pytest.raises(BadInputError, match=r"column time has no time .* read as ms; is it"):
        survey(table, IDS, "time", unit="ms")
