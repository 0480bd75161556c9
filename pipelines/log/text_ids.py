"""Text ids and the numbers they have inside: users, items and categories of the user's own system.

The number of a user or an item is 63 bits of blake2b of the UTF-8 text: the same in every import,
on every machine, in every year, with no state to lose. A producer or a reader computes it by itself
(docs/events.md), and a service needs no table in memory to read a request. The pairs that occurred
are in `log/ids/KIND-….parquet`, in order of number, for the way back.

A category has 31 bits of the same hash, as a sequence in the store keeps 32 bits of it
(`uic.models.records.sequence_ring`). Of two categories with one number (1,000 texts: once in 4,000
logs) the later one gets the next number that is free, and keeps it: the pairs of the log say so.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import MAX_ID

Kind = Literal["user", "item", "category"]
KINDS: Final[tuple[Kind, ...]] = ("user", "item", "category")
PAIRS: Final = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("text", pa.string(), nullable=False)]
)
# As many as any id needs; int() refuses 5,000 of them with an error of its own.
_DIGITS: Final = re.compile(r"[0-9]{1,30}")
# Pairs that are computed again when a log's table is opened: some milliseconds.
_CHECKED_PAIRS: Final = 1000


class TextIdsError(BadInputError):
    """An id is none of the log's kind, or the log's table of texts is not what it has to be."""


def number_of(text: str) -> int:
    """The int64 id of a text id of a user or an item, 0 to 2^63 - 1."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def category_number_of(text: str) -> int:
    """The id of a text category unless another text has it already, 0 to 2^31 - 1."""
    return number_of(text) >> 32


def check_pairs(kind: Kind, path: Path, ids: Iterable[int], texts: Iterable[str]) -> None:
    """Refuse a table of users or items whose numbers are not those of the texts.

    Raises:
        TextIdsError: it was made by another hash, or changed by hand.
    """
    if kind == "category":  # their numbers may have been taken when they came
        return
    for number, text in zip(ids, texts, strict=True):
        if number_of(text) != number:
            msg = (
                f"{path}: {kind} {text!r} has number {number}, its text gives {number_of(text)}: "
                "the table is of another version, or was changed; restore it, or import again"
            )
            raise TextIdsError(msg)


@dataclass(frozen=True)
class FoundId:
    """A text and its number; `in_log` says whether an import had it."""

    kind: Kind
    text: str
    number: int
    in_log: bool


@dataclass(frozen=True)
class TextIds:
    """Ids as a log's own system writes them, to numbers and back.

    Nothing but the paths is kept in memory: numbers are computed, and texts are read when they are
    asked for.

    Attributes:
        root: of the log, for messages.
        files: by kind that was imported as text, its table of pairs; other kinds are numbers.
    """

    root: Path = Path("log")
    files: Mapping[Kind, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, log: EventLog) -> Self:
        """The ids of a log as it is now; all are numbers in an empty one.

        Raises:
            TextIdsError: a table's numbers are not those of its texts.
        """
        found = {kind: log.ids_file(kind) for kind in KINDS}
        files = {kind: path for kind, path in found.items() if path is not None}
        for kind, path in files.items():
            with _read(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_CHECKED_PAIRS, columns=["id", "text"]):
                    check_pairs(kind, path, batch["id"].to_pylist(), batch["text"].to_pylist())
                    break
        return cls(log.root, files)

    def are_texts(self, kind: Kind) -> bool:
        """Whether ids of this kind are texts in the log's own system."""
        return kind in self.files

    def number(self, kind: Kind, said: int | str) -> int:
        """The number of an id; a number is one already.

        Raises:
            TextIdsError: a text that is no number, where the log's ids are numbers; a number that
                is no id; a text that is no UTF-8, or empty.
        """
        if said == "":
            msg = f"{kind} '': an id has at least one character"
            raise TextIdsError(msg)
        if isinstance(said, str) and self.are_texts(kind):
            try:
                return self._category(said) if kind == "category" else number_of(said)
            except UnicodeEncodeError as error:
                msg = f"{kind} {said!a}: no UTF-8 text"
                raise TextIdsError(msg) from error
        if isinstance(said, str) and not _DIGITS.fullmatch(said):
            msg = f"{kind} {said!r}: ids of {self.root} are numbers; expected 0 to 2^63 - 1"
            raise TextIdsError(msg)
        if not 0 <= int(said) <= MAX_ID:
            msg = f"{kind} {said}: no id; expected 0 to 2^63 - 1"
            raise TextIdsError(msg)
        return int(said)

    def pairs(self, kind: Kind, numbers: Iterable[int]) -> dict[int, str]:
        """The texts of those of some numbers that the log has a text of.

        Raises:
            TextIdsError: the log's table cannot be read, or its numbers are not the texts'.
        """
        wanted = sorted(set(numbers))
        path = self.files.get(kind)
        if path is None or not wanted:
            return {}
        with _read(path):
            # Row groups are in order of number: those without any of them are not read.
            table = pq.read_table(path, filters=pc.field("id").isin(pa.array(wanted, pa.int64())))
        ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
        check_pairs(kind, path, ids, texts)
        return dict(zip(ids, texts, strict=True))

    def said(self, kind: Kind, numbers: Sequence[int]) -> list[int | str]:
        """Ids as people know them: texts where the log has them, else the numbers, as strings.

        Where ids are numbers, the numbers themselves. A number without a text is that of an event
        which a producer sent, and that no import had.
        """
        if not self.are_texts(kind):
            return list(numbers)
        known = self.pairs(kind, numbers)
        return [known.get(number, str(number)) for number in numbers]

    def find_text(self, text: str) -> list[FoundId]:
        """The numbers of a text: of the kinds that have it in the log, or of all kinds of texts.

        Raises:
            TextIdsError: all ids of the log are numbers.
        """
        self._refuse_numbers()
        found = []
        for kind in self.files:
            number = self.number(kind, text)
            found.append(FoundId(kind, text, number, self.pairs(kind, [number]) == {number: text}))
        return [one for one in found if one.in_log] or found

    def find_number(self, number: int) -> list[FoundId]:
        """The texts of a number, by kind.

        Raises:
            TextIdsError: it has none, or is no id.
        """
        self._refuse_numbers()
        found = [
            FoundId(kind, text, number, in_log=True)
            for kind in self.files
            for text in self.pairs(kind, [self.number(kind, number)]).values()
        ]
        if not found:
            msg = f"number {number}: no {', '.join(self.files)} of {self.root} has it"
            raise TextIdsError(msg)
        return found

    def _refuse_numbers(self) -> None:
        if not self.files:
            msg = f"{self.root}: its ids are numbers, or it is empty; there is no text to look up"
            raise TextIdsError(msg)

    def _category(self, text: str) -> int:
        path = self.files["category"]
        with _read(path):
            table = pq.read_table(path, filters=pc.field("text") == text)
        return table["id"].to_pylist()[0] if table.num_rows else category_number_of(text)


@contextmanager
def _read(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        msg = f"{path}: cannot be read as Parquet of id, text ({error}); restore it from a backup"
        raise TextIdsError(msg) from error
