"""What an importer is, and what all of them use: input files, rejects, checks of values."""

import bz2
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, Owner
from uic.models.published import sha256_of
from uic.pipelines.importers.plausible import PlausibleTimes
from uic.pipelines.log.events import MAX_ID, MAX_TIME_MS, Reason
from uic.pipelines.log.text_ids import Kind

# Rows of a batch: about 50 MB, enough for vectorised work to dominate.
BATCH_ROWS: Final = 1 << 19
_MAX_PAYLOAD_CHARACTERS: Final = 2_000


@dataclass(frozen=True)
class OwnerRows:
    """Values of features, some rows of an import.

    Attributes:
        owner: whose.
        table: a column a feature; of users and items also `id`, int64, and, if they are dated,
            `valid_from`, timestamp[ms].
        definitions: of the columns; those that are not there are guessed.
    """

    owner: Owner
    table: pa.Table
    definitions: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Columns in file order, each as `uic.pipelines.log.writer.LogWriter` takes them.

    `done` says how much of the input has been read, in the unit of `Importer.total`.
    """

    done: int
    behaviors: pa.Table | None = None
    impressions: pa.Table | None = None
    items: pa.Table | None = None
    features: tuple[OwnerRows, ...] = ()


class Importer(Protocol):
    """One format.

    Attributes:
        name: of the epoch.
        notes: what readers of the log have to know about the data; sentences for the manifest.
        has_impressions: whether the files hold impressions; others can make some by protocol.
        total: size of the input, for progress.
    """

    name: str
    has_impressions: bool
    total: int
    notes: Sequence[str]

    def sources(self) -> Sequence[Path]:
        """The input files."""

    def batches(self, rejects: "Rejects", ids: "IdNumbers") -> Iterator[Batch]:
        """Read the files once.

        Raises:
            BadInputError: a file is not what it has to be as a whole.
        """


class IdNumbers(Protocol):
    """Numbers for string ids (`uic.pipelines.importers.string_ids`)."""

    def numbers(self, kind: Kind, texts: pa.Array) -> NDArray[np.int64]:
        """The number of each text; `kind` is user, item or category."""


class Rejects:
    """The rows that were left out: one JSON line each with file, line, reason and payload.

    Args:
        path: of the file; it is made with the first reject.
        times: which times can be true; by default all that the log can hold.

    Attributes:
        left_out: rows that are not asked for: counted, and not in the file.
        left_out_by: the option that does not ask for them.
        remarks: what a person should know of the rows that were taken, a sentence each.
    """

    def __init__(self, path: Path, times: PlausibleTimes | None = None) -> None:
        self.path = path
        self.times = times or PlausibleTimes.any_time()
        self.by_reason: Counter[str] = Counter()
        self.left_out = 0
        self.left_out_by = "--where"
        self.remarks: list[str] = []
        self._first: dict[Path, str] = {}
        self._stream: IO[str] | None = None

    def add(self, file: Path, line: int, reason: str, payload: str) -> None:
        """Leave out one row; `line` counts from 1 (rows from 1 in a Parquet file)."""
        self.by_reason[reason] += 1
        self._first.setdefault(file, f"{file}: line {line}: {reason}: {payload[:80]!r}")
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("w", encoding="utf-8")
        entry = {
            "file": file.name,
            "line": line,
            "reason": str(reason),
            "payload": payload[:_MAX_PAYLOAD_CHARACTERS],
        }
        self._stream.write(json.dumps(entry, ensure_ascii=True) + "\n")

    def remark(self, text: str | None) -> None:
        """Keep a sentence for the summary, once."""
        if text is not None and text not in self.remarks:
            self.remarks.append(text)

    def first_of(self, path: Path) -> str | None:
        """The first reject of a file in a line; if it has none, the first of any."""
        return self._first.get(path, next(iter(self._first.values()), None))

    @property
    def rows(self) -> int:
        """How many rows were left out."""
        return self.by_reason.total()

    def close(self) -> None:
        """Finish the file; it may be published then."""
        if self._stream is not None:
            self._stream.close()


class UnheardRejects(Rejects):
    """For a look at a file before its import, which will tell of broken lines itself."""

    def __init__(self) -> None:
        super().__init__(Path())

    def add(self, file: Path, line: int, reason: str, payload: str) -> None:
        """Say nothing."""


def fingerprint(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Name, size and sha256 of each input, for the manifest.

    Raises:
        BadInputError: one is missing or cannot be read.
    """
    entries = []
    for path in paths:
        with readable(path):
            size = path.stat().st_size
            if not size:
                msg = f"{path}: is empty (0 bytes); nothing to import"
                raise BadInputError(msg)
            entries.append({"name": path.name, "bytes": size, "sha256": sha256_of(path)})
    return entries


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading `path` into one line.

    Raises:
        BadInputError: names the file and what is the matter.
    """
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{path}: no such file"
        raise BadInputError(msg) from error
    except (OSError, EOFError, pa.ArrowException, zlib.error, lzma.LZMAError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"{path}: cannot be read ({reason}); is it complete, and of this format?"
        raise BadInputError(msg) from error


# First bytes of what `decompressed` undoes.
_GZIP: Final = b"\x1f\x8b"
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def decompressed(raw: IO[bytes]) -> IO[bytes]:
    """A stream of what a file holds: gzip, zstd, bzip2 and xz are undone, by the first bytes.

    `raw` stays open, and its position is what progress can be held against.
    """
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(_GZIP):
        return gzip.open(raw, "rb")  # type: ignore[return-value] # GzipFile reads as IO[bytes]
    if head.startswith(_ZSTD):
        stream: IO[bytes] = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
        return stream
    if head.startswith(_BZIP2):
        return bz2.open(raw, "rb")
    return lzma.open(raw, "rb") if head.startswith(_XZ) else raw


def fault_codes(
    ids: Mapping[str, NDArray[np.int64]],
    times_ms: NDArray[np.int64],
    behaviors: NDArray[np.int64],
) -> NDArray[np.int8]:
    """Why each row cannot be in the log: an index into `FAULTS`, 0 if it can; shape (rows,)."""
    fault = np.zeros(len(times_ms), np.int8)
    fault[behaviors < 0] = FAULTS.index(Reason.UNKNOWN_BEHAVIOR)
    fault[(times_ms < 0) | (times_ms > MAX_TIME_MS)] = FAULTS.index(TIME_OUT_OF_RANGE)
    for values in ids.values():
        fault[(values < 0) | (values > MAX_ID)] = FAULTS.index(Reason.ID_OUT_OF_RANGE)
    return fault


TIME_OUT_OF_RANGE: Final = "event_time_out_of_range"
IMPLAUSIBLE_TIME: Final = "implausible_time"
NOT_UTF8: Final = "not_utf8"
CANCELLATION: Final = "cancellation"
FAULTS: Final[tuple[str, ...]] = (
    "",
    Reason.UNKNOWN_BEHAVIOR,
    TIME_OUT_OF_RANGE,
    Reason.ID_OUT_OF_RANGE,
    Reason.WRONG_TYPE,
    Reason.MISSING_FIELD,
    IMPLAUSIBLE_TIME,
    NOT_UTF8,
    CANCELLATION,
)
