"""MovieLens, RetailRocket and Yoochoose, as they are downloaded, and what is none of them."""

import gzip
from pathlib import Path

import pytest

from tests.pipelines.imported import behaviors, rejects, run
from uic.models.errors import BadInputError
from uic.pipelines.importers.plausible import ImplausibleTimesError
from uic.pipelines.importers.public_sets import movielens, retailrocket, yoochoose
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import category_number_of as category
from uic.pipelines.log.writer import DuplicateImportError

CLICKS = (
    "1,2014-04-07T10:51:09.277Z,214536502,0\n"
    "1,2014-04-07T10:54:09.868Z,214536500,S\n"
    "2,2014-04-07T13:56:37.614Z,214536502,7\n"
    "2,2014-04-07T13:57:00.000Z,214536500,2089337312\n"
)
BUYS = "2,2014-04-07T14:00:00.001Z,214536502,12462,1\n2,2014-04-07T14:00:00.002Z,99,0,0\n"
EVENTS = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,257597,view,355908,\n"
    "1433224214164,992329,addtocart,248676,\n"
    "1433224215000,992329,transaction,248676,4000\n"
)


def saved(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("latin1"))
    return path


def test_good_ratings_of_movielens_are_clicks_with_the_first_genre(tmp_path: Path) -> None:
    folder, log = tmp_path / "ml-1m", EventLog(tmp_path / "log")
    lines = "1::1193::5::978300760\n1::661::3::978302109\n2::9::4::978300761\n2::x::4::978300761\n"
    saved(folder / "ratings.dat", lines)
    # The file of the million is not UTF-8; its titles are not read.
    saved(folder / "movies.dat", "661::A::Drama\n1193::Caf\xe9 (1995)::Animation|Children's|War\n")
    summary = run(movielens(folder), log, any_time=False)
    assert behaviors(log) == [
        (1, 1193, category("Animation"), "click", 978_300_760_000),
        (2, 9, category("unknown"), "click", 978_300_761_000),
    ]
    assert (summary.left_out, summary.left_out_by) == (1, "--least-rating")
    assert rejects(summary) == [(4, "wrong_type")]
    (manifest,) = log.manifests()
    assert [source["name"] for source in manifest["sources"]] == ["ratings.dat", "movies.dat"]
    assert "A rating of at least 4 is a click; others were left out." in manifest["notes"]


def test_movielens_under_a_header_has_half_stars_and_quoted_titles(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    lines = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,29,3.5,825638400\n"
    file = saved(tmp_path / "ratings.csv", lines)
    saved(tmp_path / "movies.csv", 'movieId,title,genres\n29,"City, the",(no genres listed)\n')
    run(movielens(file, least_rating=3.5), log, any_time=False)  # of 1996, and true
    assert behaviors(log) == [(1, 29, category("(no genres listed)"), "click", 825_638_400_000)]


def test_movielens_between_tabs_is_the_one_without_genres(tmp_path: Path) -> None:
    log, file = EventLog(tmp_path / "log"), tmp_path / "u.data"
    file.write_bytes(b"196\t242\t3\t881250949\n186\t302\t4\t891717742\n")
    run(movielens(tmp_path), log, any_time=False)
    assert behaviors(log) == [(186, 302, 0, "click", 891_717_742_000)]


def test_ratings_before_movielens_began_are_no_times_of_it(tmp_path: Path) -> None:
    file = saved(tmp_path / "u.data", "196\t242\t5\t88125094\n")
    with pytest.raises(
        ImplausibleTimesError, match=r"expected 1995-01-01 to now.*of the events\?;"
    ):
        run(movielens(file), EventLog(tmp_path / "log"), any_time=False)


def test_events_of_retailrocket(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(EVENTS.encode()))
    run(retailrocket(tmp_path / "events.csv.gz"), log, any_time=False)
    assert behaviors(log) == [
        (257597, 355908, 0, "click", 1_433_221_332_117),
        (992329, 248676, 0, "cart", 1_433_224_214_164),
        (992329, 248676, 0, "buy", 1_433_224_215_000),
    ]


@pytest.mark.parametrize(
    "given",
    [["."], ["yoochoose-buys.dat", "yoochoose-clicks.dat"], ["yoochoose-clicks.dat"]],
    ids=["folder", "both", "beside"],
)
def test_clicks_and_buys_of_yoochoose_are_one_import(tmp_path: Path, given: list[str]) -> None:
    folder, log = tmp_path / "set", EventLog(tmp_path / "log")
    clicks = saved(folder / "yoochoose-clicks.dat", CLICKS)
    saved(folder / "yoochoose-buys.dat", BUYS)
    run(yoochoose([folder / name for name in given], "Asia/Tokyo"), log, any_time=False)
    assert behaviors(log) == [
        (1, 214536502, category("0"), "click", 1_396_867_869_277),
        (1, 214536500, category("S"), "click", 1_396_868_049_868),
        (2, 214536502, category("7"), "click", 1_396_878_997_614),
        (2, 214536500, category("2089337312"), "click", 1_396_879_020_000),
        (2, 214536502, category("7"), "buy", 1_396_879_200_001),
        (2, 99, category("0"), "buy", 1_396_879_200_002),
    ]
    with pytest.raises(DuplicateImportError, match="already in the log as epoch 1"):
        run(yoochoose([clicks]), log)


def test_buys_of_yoochoose_alone_are_refused(tmp_path: Path) -> None:
    buys = saved(tmp_path / "yoochoose-buys.dat", BUYS)
    with pytest.raises(BadInputError, match=r"has buys, .*; name yoochoose-clicks\.dat, too"):
        yoochoose([buys])


def test_clicks_of_yoochoose_alone_are_a_log(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    saved(tmp_path / "yoochoose-clicks.dat", CLICKS)
    run(yoochoose([tmp_path]), log, any_time=False)
    assert {row[3] for row in behaviors(log)} == {"click"}


def test_a_folder_without_the_file_says_what_was_looked_for(tmp_path: Path) -> None:
    saved(tmp_path / "set" / "README.txt", "x")
    for make, names in (
        (movielens, r"ratings\.dat or ratings\.csv or u\.data"),
        (retailrocket, r"events\.csv"),
        (lambda path: yoochoose([path]), r"yoochoose-clicks\.dat"),
    ):
        with pytest.raises(BadInputError, match=rf"set: has no {names}; found README\.txt"):
            make(tmp_path / "set")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EVENTS, r"column userId is missing; found timestamp.*uic import movielens. reads ratings"),
        ("1::2::5\n", r"line 1 has 3 values.*reads ratings of user::movie::rating::seconds"),
        ("a::2::5::978300760\n", r"column user holds no whole numbers .*, found 'a'"),
        ("1::2::5::2001-01-01\n", r"column time holds no whole numbers, found '2001-01-01'"),
        ("1::2::good::978300760\n", r"column rating holds no numbers, found 'good'"),
        ("PK\x03\x04", "is a zip archive"),
    ],
)
def test_ratings_of_another_form_are_refused_by_the_column(
    tmp_path: Path, text: str, message: str
) -> None:
    file = saved(tmp_path / "ratings.dat", text)
    with pytest.raises(BadInputError, match=rf"ratings\.dat: .*{message}"):
        movielens(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EVENTS, "column item holds no whole numbers .*, found 'event'"),
        (BUYS.replace("T", " day "), "column time holds no times of ISO 8601, found '2014"),
        (BUYS.replace(",1\n", ",1,2\n"), "line 1 has 6 values"),
    ],
)
def test_a_second_file_of_another_form_is_refused_before_the_first_is_read(
    tmp_path: Path, text: str, message: str
) -> None:
    clicks, other = saved(tmp_path / "c.dat", CLICKS), saved(tmp_path / "other.dat", text)
    with pytest.raises(BadInputError, match=rf"other\.dat: .*{message}.*reads clicks of session"):
        yoochoose([clicks, other])


def test_ratings_that_are_all_too_low_name_the_option(tmp_path: Path) -> None:
    file = saved(tmp_path / "ratings.dat", "1::1193::5::978300760\n")
    with pytest.raises(BadInputError, match="no row could be imported; --least-rating leaves 1 "):
        run(movielens(file, least_rating=5.5), EventLog(tmp_path / "log"))
