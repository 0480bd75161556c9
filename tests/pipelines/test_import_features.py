"""Features that come in with an import: context in the log, users and items in tables."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic.models.errors import BadInputError
from uic.models.features.dated import DatedTable
from uic.models.features.definition import Kind, Owner
from uic.models.features.event_columns import EventColumn
from uic.models.features.feature_file import load_features
from uic.models.features.raw import category_of
from uic.pipelines.importers.features import FeatureCollector, changes_of
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.importers.table_features import column_names
from uic.pipelines.log.event_log import EventLog

from .imported import run

ROWS = """\
who,what,when,age,vip,price,pos,seen,code
ann,a,86400000,30,true,1.5,1,1,007
ann,b,86401000,30,true,2.5,2,0,1
bob,a,86402000,,FALSE,1.5,3,0,2
ann,a,86403000,31,true,1.75,1,1,3
bob,b,86404000,20,false,NaN,2,1,4
x,b
"""


def columns(user=(), item=(), context=(), event=(), **others) -> TableColumns:
    features = {
        Owner.USER: column_names(Owner.USER, user),
        Owner.ITEM: column_names(Owner.ITEM, item),
        Owner.CONTEXT: column_names(Owner.CONTEXT, context),
        Owner.EVENT: column_names(Owner.EVENT, event),
    }
    defaults = {"clicked": "seen", "string_ids": frozenset({"user", "item"})}
    return TableColumns("who", "what", "when", features=features, **{**defaults, **others})


def imported(tmp_path: Path, text: str, given: TableColumns, name: str = "t.csv", **options):
    (tmp_path / name).write_text(text)
    log = EventLog(tmp_path / "var" / "log")
    importer = TableImporter(tmp_path / name, given)
    return run(importer, log, features=FeatureCollector(tmp_path / "var"), **options)


def table(tmp_path: Path, file: str) -> list[tuple]:
    """Rows as (text of the id, second of the day, values…)."""
    found = pq.read_table(tmp_path / "var" / "features" / file)
    kind = found.column_names[0].removesuffix("_id")
    pairs = pq.read_table(EventLog(tmp_path / "var" / "log").ids_file(kind))
    texts = dict(zip(pairs["id"].to_pylist(), pairs["text"].to_pylist(), strict=True))
    rows = [tuple(row.values()) for row in found.to_pylist()]
    return sorted((texts[row[0]], row[1].second, *row[2:]) for row in rows)


def test_a_row_a_change_by_the_numbers_of_the_log(tmp_path):
    made = imported(tmp_path, ROWS, columns(["age", "vip"], ["price"], ["position=pos"]))
    assert table(tmp_path, "users.parquet") == [
        ("ann", 0, 30, True),
        ("ann", 3, 31, True),
        ("bob", 2, None, False),
        ("bob", 4, 20, False),
    ]
    assert table(tmp_path, "items.parquet") == [
        ("a", 0, 1.5), ("a", 3, 1.75), ("b", 1, 2.5), ("b", 4, None),
    ]  # fmt: skip
    assert made.rejects == {"malformed": 1}
    log = EventLog(tmp_path / "var" / "log")
    shown = pq.read_table(log.impression_files()[0].path)
    assert shown["position"].to_pylist() == [1, 2, 3, 1, 2]
    assert "age" not in shown.column_names


def test_the_file_names_what_came_in_and_joins_it(tmp_path):
    given = columns(["age", "vip"], ["price"], ["position=pos", "code"])
    made = imported(tmp_path, ROWS, given)
    found = load_features(tmp_path / "var" / "features.yaml")
    kinds = {one.key: one.feature.type for one in found}
    assert kinds == {
        "user.age": Kind.CATEGORICAL,
        "user.vip": Kind.CATEGORICAL,
        "item.price": Kind.NUMBER,
        "context.position": Kind.CATEGORICAL,
        "context.code": Kind.CATEGORICAL,  # a text: 007 is not 7
    }
    shares = {one.name: one.with_value for one in made.features.features}
    assert shares == {"age": 0.8, "vip": 1, "price": 0.8, "position": 1, "code": 1}
    source = found.sources.user
    path = found.folder / source.file
    ann = pq.read_table(path)["user_id"].to_pylist()[-1]
    dated = DatedTable.read(path, source, found.of(Owner.USER))
    seconds = np.array([0, 1, 3, 4]) * 1000 + 86_400_000
    held = dated.as_of(np.full(4, ann), seconds)
    age = dated.take(found.of(Owner.USER)[0], held).tolist()
    assert age[1:] == [30, 30, 31]  # what a row says is seen after it
    assert held[0] == -1


def test_a_file_that_a_person_wrote_stays_and_what_it_lacks_is_told(tmp_path):
    (tmp_path / "var").mkdir()
    mine = (
        "version: 1\nsources:\n"
        "  user: {file: features/users.parquet, id: user_id, valid_from: valid_from}\n"
        "user:\n  years: {type: number, column: age}\n"
    )
    (tmp_path / "var" / "features.yaml").write_text(mine)
    made = imported(tmp_path, ROWS, columns(["age"], ["price"]))
    assert (tmp_path / "var" / "features.yaml").read_text() == mine
    assert made.features.to_add == (
        "sources:\n  item: {file: features/items.parquet, id: item_id, valid_from: valid_from}\n"
        "item:\n  price: {type: number}\n"
    )


def test_whole_numbers_of_many_values_are_numbers(tmp_path):
    lines = [f"u,{row},{86_400_000 + row},{row},1" for row in range(101)]
    few = "\n".join(["who,what,when,n,seen", *lines[:100]])
    many = "\n".join(["who,what,when,n,seen", *lines])
    made = imported(tmp_path, few, columns(context=["n"]))
    assert made.features.features[0].feature.type is Kind.CATEGORICAL
    made = imported(
        tmp_path / "..", many, columns(context=["n"]), f"{tmp_path.name}.csv", again=True
    )
    assert made.features.features[0].feature.type is Kind.NUMBER


def test_a_second_import_goes_on_and_a_column_that_it_lacks_keeps_its_values(tmp_path):
    imported(tmp_path, ROWS, columns(["age", "vip"]))
    more = "who,what,when,vip,seen\nann,a,86405000,true,1\nann,a,86406000,false,1\n"
    imported(tmp_path, more, columns(["vip"]), "more.csv")
    assert table(tmp_path, "users.parquet") == [
        ("ann", 0, 30, True),
        ("ann", 3, 31, True),
        ("ann", 6, 31, False),
        ("bob", 2, None, False),
        ("bob", 4, 20, False),
    ]
    wrong = "who,what,when,vip,seen\nann,a,86407000,gold,1\n"
    with pytest.raises(BadInputError, match=r"users.parquet: a column is of another type now"):
        imported(tmp_path, wrong, columns(["vip"]), "wrong.csv")
    assert len(EventLog(tmp_path / "var" / "log").manifests()) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"context": ["pos"], "clicked": None}, r"--context: is of impressions"),
        ({"context": ["none"]}, "column none is missing"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, given, says):
    with pytest.raises(BadInputError, match=says):
        imported(tmp_path, ROWS, columns(**given))


@pytest.mark.parametrize(
    ("owner", "text", "says"),
    [
        (Owner.CONTEXT, "Pos", "found 'Pos', expected NAME=COL"),
        (Owner.CONTEXT, "clicked=pos", "clicked is a column of the log already; say OTHER=pos"),
        (Owner.USER, "valid_from", "--user-feature: valid_from is a column"),
    ],
)
def test_a_name_that_is_none_is_refused(owner, text, says):
    with pytest.raises(BadInputError, match=says):
        column_names(owner, [text])


def test_parquet_keeps_its_types_and_lists_are_refused(tmp_path):
    rows = {"who": [1, 1], "what": [2, 3], "when": [86_400_000, 86_401_000], "seen": [1, 0]}
    rows |= {"tab": pa.array(["x", "y"]).dictionary_encode(), "many": [[1], [2]]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    log = EventLog(tmp_path / "var" / "log")
    importer = TableImporter(tmp_path / "t.parquet", columns(context=["tab"]))
    run(importer, log, features=FeatureCollector(tmp_path / "var"))
    shown = pq.read_table(log.impression_files()[0].path)
    assert shown["tab"].to_pylist() == ["x", "y"]
    with pytest.raises(BadInputError, match=r"column many is list<.*>, expected texts, numbers"):
        TableImporter(tmp_path / "t.parquet", columns(context=["many"]))


def test_kuairand_brings_its_tables(tmp_path):
    one = {"user_id": [7], "video_id": [3], "tag": ["5"], "time_ms": [86_400_000], "is_click": [1]}
    pq.write_table(
        pa.table({**one, "tab": [2], "play_time_ms": [9]}), tmp_path / "impressions.parquet"
    )
    videos = {"video_id": [3, 4], "tag": ["5", None], "author_id": [1, 2]}
    pq.write_table(pa.table(videos), tmp_path / "videos.parquet")
    users = {"user_id": [7, 8], "fans_user_num": [10, 20], "onehot_feat4": [1.0, None]}
    pq.write_table(pa.table(users), tmp_path / "user_features.parquet")
    log = EventLog(tmp_path / "var" / "log")
    importer = KuaiRand(tmp_path, prior_history=False)
    made = run(importer, log, features=FeatureCollector(tmp_path / "var"))
    assert made.features.to_add is None
    found = load_features(tmp_path / "var" / "features.yaml")
    assert [one.key for one in found] == [
        "user.fans", "user.onehot_feat4", "item.author", "context.tab",
    ]  # fmt: skip
    source = found.sources.user
    dated = DatedTable.read(found.folder / source.file, source, found.of(Owner.USER))
    at = dated.as_of(np.array([7, 8, 9]), np.array([0, 0, 0]))
    assert dated.take(found.of(Owner.USER)[0], at)[:2].tolist() == [10, 20]
    assert at.tolist() == [0, 1, -1]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 4), st.sampled_from([None, 1.0, 2.0])),
        min_size=1,
        max_size=12,
    ),
    cut=st.integers(0, 12),
)
def test_changes_say_at_any_moment_what_the_last_row_said(rows, cut):
    def as_table(part):
        ids, times, values = zip(*part, strict=True) if part else ((), (), ())
        return pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "valid_from": pa.array(times, pa.timestamp("ms")),
                "x": pa.array(values, pa.float64()),
            }
        )

    changes = changes_of([as_table(rows[:cut]), as_table(rows[cut:])]).to_pylist()
    for one in (1, 2):
        for moment in range(6):
            before = [row for row in rows if row[0] == one and row[1] < moment]
            last = sorted(before, key=lambda row: row[1])[-1:]
            held = [
                row["x"] for row in changes
                if row["id"] == one and row["valid_from"].microsecond // 1000 < moment
            ]  # fmt: skip
            assert held[-1:] == [row[2] for row in last]
        said = [row["x"] for row in changes if row["id"] == one]
        assert all(left != right for left, right in itertools.pairwise(said))


def of_events(tmp_path: Path) -> list[dict]:
    """Columns of events, by time."""
    files = EventLog(tmp_path / "var" / "log").behavior_files()
    found = pa.concat_tables([pq.read_table(file.path) for file in files]).sort_by("event_time")
    return found.select([name for name in found.column_names if "event." in name]).to_pylist()


def test_features_of_events_are_kept_in_the_log_of_behaviours(tmp_path):
    given = columns(event=["price", "shop=who", "code", "vip"], clicked=None)
    made = imported(tmp_path, ROWS, given)
    ann, bob = category_of("ann"), category_of("bob")
    code = [category_of(text) for text in ("007", "1", "2", "3", "4")]
    assert of_events(tmp_path) == [
        {"event.price": 1.5, "event.shop": ann, "event.code": code[0], "event.vip": 1},
        {"event.price": 2.5, "event.shop": ann, "event.code": code[1], "event.vip": 1},
        {"event.price": 1.5, "event.shop": bob, "event.code": code[2], "event.vip": 0},
        {"event.price": 1.75, "event.shop": ann, "event.code": code[3], "event.vip": 1},
        {"event.price": None, "event.shop": bob, "event.code": code[4], "event.vip": 0},
    ]
    named = load_features(made.features.file).of(Owner.EVENT)
    assert {one.name: one.feature.type for one in named} == {
        "price": Kind.NUMBER,
        "shop": Kind.CATEGORICAL,
        "code": Kind.CATEGORICAL,
        "vip": Kind.CATEGORICAL,
    }
    epoch = EventLog(tmp_path / "var" / "log").epochs()[0]
    assert [one.column for one in epoch.columns] == list(map(EventColumn.of, named))


def test_a_clicked_impression_gives_its_click_the_features_of_events(tmp_path):
    imported(tmp_path, ROWS, columns(event=["price"], context=["pos"]))
    assert [row["event.price"] for row in of_events(tmp_path)] == [1.5, 1.75, None]
    shown = EventLog(tmp_path / "var" / "log").impression_files()[0]
    assert "event.price" not in pq.read_schema(shown.path).names


def test_whole_numbers_of_events_are_what_the_file_of_features_says(tmp_path):
    (tmp_path / "var").mkdir()
    file = tmp_path / "var" / "features.yaml"
    file.write_text("version: 1\nevent: {age: {type: number}}\n")
    imported(tmp_path, ROWS, columns(event=["age", "pos"], clicked=None))
    kinds = pq.read_schema(EventLog(tmp_path / "var" / "log").behavior_files()[0].path)
    assert [kinds.field(f"event.{name}").type for name in ("age", "pos")] == [
        pa.float64(),
        pa.int64(),
    ]
    file.write_text("version: 1\nevent: {who: {type: number}}\n")
    with pytest.raises(BadInputError, match=r"event\.who is a number, its column has texts"):
        imported(tmp_path, ROWS, columns(event=["who"], clicked=None), again=True)
    assert file.read_text().endswith("number}}\n")


def test_an_import_cannot_make_another_kind_of_a_column(tmp_path):
    imported(tmp_path, ROWS, columns(event=["price"], clicked=None))
    (tmp_path / "var" / "features.yaml").unlink()
    with pytest.raises(BadInputError, match=r"event\.price is categorical, epoch 1 .* as number"):
        imported(tmp_path, ROWS, columns(event=["price=who"], clicked=None), again=True)


@pytest.mark.parametrize("name", ["event_time", "log_time", "source", "offset"])
def test_a_feature_of_events_cannot_be_what_every_event_has(name):
    with pytest.raises(BadInputError, match=f"--event-feature: {name} is a column of the log"):
        column_names(Owner.EVENT, [name])


def test_times_of_features_without_a_zone_are_of_the_imports_zone(tmp_path):
    moments = pa.array(["2026-03-01 09:00:00", "2026-03-02 00:30:00"]).cast(pa.timestamp("s"))
    rows = pa.table(
        {
            "who": ["ann", "bob"],
            "what": ["a", "b"],
            "when": moments,
            "seen": [1, 0],
            "since": moments,
            "zoned": moments.cast(pa.timestamp("s", "UTC")),
        }
    )
    pq.write_table(rows, tmp_path / "t.parquet")
    given = columns(["since", "zoned"], (), ["opened=since"], time_zone="Asia/Tokyo")
    log = EventLog(tmp_path / "var" / "log")
    importer = TableImporter(tmp_path / "t.parquet", given)
    run(importer, log, features=FeatureCollector(tmp_path / "var"))
    utc = np.array(["2026-03-01T00:00:00", "2026-03-01T15:30:00"], "M8[ms]")
    users = pq.read_table(tmp_path / "var" / "features" / "users.parquet").sort_by("valid_from")
    assert (users["since"].to_numpy().astype("M8[ms]") == utc).all()
    assert (users["valid_from"].to_numpy().astype("M8[ms]") == utc).all()
    assert (users["zoned"].to_numpy().astype("M8[ms]") != utc).all()  # it has a zone of its own
    shown = pq.read_table(log.impression_files()[0].path).sort_by("event_time")
    assert (shown["opened"].to_numpy().astype("M8[ms]") == utc).all()
