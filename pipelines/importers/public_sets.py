"""MovieLens, RetailRocket and Yoochoose as they are downloaded: tables whose columns are known.

A set is some tables of `uic.pipelines.importers.table` and, where items have their categories
elsewhere than in the row of an event, these; all of it is one import.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.input_files import input_files
from uic.pipelines.importers.plausible import YEAR_2000_MS, TimeUnit
from uic.pipelines.importers.source import Batch, IdNumbers, Rejects, UnheardRejects
from uic.pipelines.importers.survey import open_look
from uic.pipelines.importers.table import TableImporter
from uic.pipelines.importers.table_columns import TableColumns
from uic.pipelines.importers.table_files import CONSTANT, TableFile, open_tables
from uic.pipelines.importers.text import TextForm, integers, texts
from uic.pipelines.log.columns import one_chunk
from uic.pipelines.log.text_ids import Kind

_NO_HEADER: Final = TextForm(header=False)
_TEXT_CATEGORIES: Final[frozenset[str]] = frozenset({"category"})
# MovieLens began in 1995; its times of before 2000 are true.
_YEAR_1995_MS: Final = 788_918_400_000

_MOVIELENS: Final = (
    "ratings of user::movie::rating::seconds, or under userId,movieId,rating,timestamp, and movies "
    "of movie::title::genres, or under movieId,title,genres, beside them"
)
_RATINGS: Final = ("user", "movie", "rating", "time")
_MOVIES: Final = ("movie", "title", "genres")

_RETAILROCKET: Final = "events under timestamp,visitorid,event,itemid,transactionid"
_EVENTS: Final = TableColumns(
    "visitorid",
    "itemid",
    "timestamp",
    behavior="event",
    behavior_names={"view": "click", "addtocart": "cart", "transaction": "buy"},
)

_YOOCHOOSE: Final = (
    "clicks of session,time,item,category and buys of session,time,item,price,quantity, without a "
    "header"
)
_CLICKS: Final = TableColumns(
    "session",
    "item",
    "time",
    "category",
    string_ids=_TEXT_CATEGORIES,
    time_unit=TimeUnit.ISO,
    header=False,
    names=("session", "time", "item", "category"),
)
_CLICKS_FILE: Final = "yoochoose-clicks.dat"
_BUYS_FILE: Final = "yoochoose-buys.dat"
# The clicks say 0 where they have no category.
_BUYS: Final = replace(
    _CLICKS,
    category_id="=0",
    behavior="=buy",
    names=("session", "time", "item", "price", "quantity"),
)


@dataclass(frozen=True)
class _ItemFile:
    """A file that says the genres of each item, `A|B`, of which the first is its category."""

    path: Path
    item: str
    genres: str
    form: TextForm

    def table(self) -> TableFile:
        return open_tables(input_files([self.path]), [self.item, self.genres], self.form)[0]

    def categories(self, rejects: Rejects, ids: IdNumbers) -> Iterator[pa.Table]:
        for rows in self.table().rows(rejects):
            items, bad = integers(one_chunk(rows.columns, self.item))
            words, _ = texts(one_chunk(rows.columns, self.genres))
            first = pc.replace_substring_regex(words, r"\|.*", "")
            numbers = ids.numbers("category", first)
            found = pa.table({"item_id": items, "category_id": numbers})
            yield found.filter(pa.array(~bad))


class PublicSet:
    """The tables of a set as one import; `movielens`, `retailrocket` and `yoochoose` make it.

    A table whose category is a constant takes the item's from `items` or, where it is known there,
    from the tables before it.

    Args:
        name: of the set, its command and its epoch.
        holds: what its files hold, for messages.
        tables: the file and the columns of each, in the order of reading.
        log_zone: whose days the log has.
        items: says the categories of items.
        notes: what readers of the log have to know.
        left_out_by: the option that leaves rows out.
        first_ms: times from here on can be true.

    Raises:
        BadInputError: a file is not what it has to be, by its first rows.
    """

    has_impressions = False

    def __init__(
        self,
        name: str,
        holds: str,
        tables: Sequence[tuple[Path, TableColumns]],
        log_zone: str,
        *,
        items: _ItemFile | None = None,
        notes: Sequence[str] = (),
        left_out_by: str = "",
        first_ms: int = YEAR_2000_MS,
    ) -> None:
        self.name, self._holds = name, holds
        self._items, self._left_out_by, self._first_ms = items, left_out_by, first_ms
        self._tables: list[tuple[TableImporter, bool]] = []
        with self._in_its_words():
            for path, columns in tables:
                table = TableImporter(path, columns, name, log_zone)
                # A second file of another form would cost its rows: so each is looked at before.
                next(table.batches(UnheardRejects(), _NoNumbers()), None)
                self._tables.append((table, (columns.category_id or "").startswith(CONSTANT)))
            if items is not None:
                items.table()
        first, _ = self._tables[0]
        self.notes: Sequence[str] = (*first.notes, *notes)
        self.total = sum(table.total for table, _ in self._tables)

    def sources(self) -> Sequence[Path]:
        """The input files."""
        files = [path for table, _ in self._tables for path in table.sources()]
        return files if self._items is None else [*files, self._items.path]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """The rows of one table after those of the other."""
        rejects.left_out_by = self._left_out_by
        rejects.times.first_ms = min(rejects.times.first_ms, self._first_ms)
        known, done = _Categories(), 0
        with self._in_its_words():
            for found in self._items.categories(rejects, ids) if self._items else ():
                known.add(found)
            for table, by_item in self._tables:
                for batch in table.batches(rejects, ids):
                    rejects.times.option = False  # the unit is the set's
                    rows = batch.behaviors
                    if by_item:
                        rows = known.given_to(rows)
                    else:
                        known.add(rows)
                    yield replace(batch, done=done + batch.done, behaviors=rows)
                done += table.total

    @contextmanager
    def _in_its_words(self) -> Iterator[None]:
        try:
            yield
        except BadInputError as error:
            msg = (
                f"{error}; `uic import {self.name}` reads {self._holds}; `uic import table` reads "
                "other tables, and has the options"
            )
            raise BadInputError(msg) from error


class _Categories:
    """The category of each item that came with one, the last; 16 bytes an item."""

    def __init__(self) -> None:
        self._items = self._numbers = np.empty(0, np.int64)

    def add(self, rows: pa.Table) -> None:
        items, numbers = (rows[name].to_numpy() for name in ("item_id", "category_id"))
        self._items, first = np.unique(np.r_[items[::-1], self._items], return_index=True)
        self._numbers = np.r_[numbers[::-1], self._numbers][first]

    def given_to(self, rows: pa.Table) -> pa.Table:
        at = pc.index_in(rows["item_id"], value_set=pa.array(self._items))
        numbers = pc.coalesce(pa.array(self._numbers).take(at), rows["category_id"])
        return rows.set_column(rows.column_names.index("category_id"), "category_id", numbers)


class _NoNumbers:
    """For a look at a file before its import."""

    def numbers(self, kind: Kind, texts: pa.Array) -> NDArray[np.int64]:
        del kind  # all kinds have none
        return np.zeros(len(texts), np.int64)


def movielens(path: Path, least_rating: float = 4.0, log_zone: str = "UTC") -> PublicSet:
    """Ratings of 100,000 to 32 million, with the first genre as category if movies lie beside them.

    Args:
        path: of `ratings.dat`, `ratings.csv` or `u.data`, or of its folder.
        least_rating: stars; from here on a rating counts as a click, others are left out.
        log_zone: whose days the log has.

    Raises:
        BadInputError: a file is not what it has to be.
    """
    file = _file_of(path, "ratings.dat", "ratings.csv", "u.data")
    delimiter = open_look(file, _NO_HEADER, any_separator=True).form.delimiter
    header = delimiter == ","
    user, movie, time = ("userId", "movieId", "timestamp") if header else ("user", "movie", "time")
    movies = file.with_name("movies.csv" if header else "movies.dat")
    has_movies = movies.is_file()
    columns = TableColumns(
        user,
        movie,
        time,
        "=unknown" if has_movies else None,
        string_ids=_TEXT_CATEGORIES,
        time_unit=TimeUnit.SECONDS,
        delimiter=delimiter,
        header=header,
        names=() if header else _RATINGS,
        where=f"rating >= {least_rating:g}",
    )
    form = TextForm(delimiter, header, () if header else _MOVIES)
    return PublicSet(
        "movielens",
        _MOVIELENS,
        [(file, columns)],
        log_zone,
        items=_ItemFile(movies, movie, "genres", form) if has_movies else None,
        notes=(
            f"A rating of at least {least_rating:g} is a click; others were left out.",
            *(() if has_movies else (f"No {movies.name} beside it: items have no category.",)),
        ),
        left_out_by="--least-rating",
        first_ms=_YEAR_1995_MS,
    )


def retailrocket(path: Path, log_zone: str = "UTC") -> PublicSet:
    """Views, carts and buys of a shop; items have no category.

    Args:
        path: of `events.csv`, or of its folder.
        log_zone: whose days the log has.

    Raises:
        BadInputError: the file is not what it has to be.
    """
    file = _file_of(path, "events.csv")
    return PublicSet("retailrocket", _RETAILROCKET, [(file, _EVENTS)], log_zone)


def yoochoose(paths: Sequence[Path], log_zone: str = "UTC") -> PublicSet:
    """Clicks of sessions and, if their file is there, buys; a session is a user.

    Args:
        paths: of `yoochoose-clicks.dat` and `yoochoose-buys.dat`, in any order, or of their folder.
        log_zone: whose days the log has.

    Raises:
        BadInputError: a file is not what it has to be.
    """
    files = [_file_of(path, _CLICKS_FILE) for path in paths]
    beside = [file.with_name(_BUYS_FILE) for file in files if file.name == _CLICKS_FILE]
    files += [buys for buys in beside if buys.is_file() and buys not in files]
    input_files(files)  # refuses one that is not there, or is there twice
    tables = [(file, _BUYS if _width(file) == len(_BUYS.names) else _CLICKS) for file in files]
    if all(columns is _BUYS for _, columns in tables):
        msg = f"{files[0]}: has buys, whose categories the clicks say; name {_CLICKS_FILE}, too"
        raise BadInputError(msg)
    return PublicSet(
        "yoochoose",
        _YOOCHOOSE,
        sorted(tables, key=lambda table: table[1] is _BUYS),
        log_zone,
        notes=("Sessions are users. A buy has the category of its item's last click in the file.",),
    )


def _width(file: Path) -> int:
    return len(open_look(file, _NO_HEADER, any_separator=False).names)


def _file_of(path: Path, *names: str) -> Path:
    """The file, or the first of these names in the folder.

    Raises:
        BadInputError: the folder has none.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        there = ", ".join(sorted(one.name for one in path.iterdir())[:10]) or "nothing"
        msg = f"{path}: has no {' or '.join(names)}; found {there}; name the file or its folder"
        raise BadInputError(msg)
    return found
