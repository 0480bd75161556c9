"""KuaiRand: impressions of a video site with clicks, and what each user saw before.

Clicks are behaviours, every row is an impression, and a video's first tag is its category.
`user_sequences` has up to 50 earlier videos a user without times: they become clicks that end at
the user's `last_time_ms`, one second apart. That order is real; the spacing is not.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import BadInputError
from pipelines.importers.parquet import TypeCheck, batches, open_parquet
from pipelines.importers.source import (
    FAULTS,
    Batch,
    IdNumbers,
    Rejects,
    fault_codes,
    readable,
)

_INT: Final = pa.types.is_integer
_IMPRESSIONS: Final[dict[str, TypeCheck]] = {
    "user_id": _INT,
    "video_id": _INT,
    "tag": pa.types.is_string,
    "time_ms": _INT,
    "is_click": _INT,
}
# What was known when the video was shown; what happened after (play time, likes) is left out, or
# a model could read the label off it.
_CONTEXT: Final[dict[str, pa.DataType]] = {
    "tab": pa.int16(),
    "is_rand": pa.bool_(),
    "duration_ms": pa.int64(),
    "author_id": pa.int64(),
}
_SEQUENCES: Final[dict[str, TypeCheck]] = {
    "user_id": _INT,
    "last_time_ms": _INT,
    "watch_seq": pa.types.is_list,
}
_VIDEOS: Final[dict[str, TypeCheck]] = {"video_id": _INT, "tag": pa.types.is_string}
# No video of the set has a tag 0; a video without a tag, or not in `videos`, has this category.
UNKNOWN_TAG: Final = 0
_CLICK: Final = 0


class KuaiRand:
    """`impressions.parquet`, `videos.parquet` and `user_sequences.parquet` of a folder.

    Args:
        directory: the folder.
        prior_history: make clicks of `user_sequences`.
    """

    name = "kuairand"
    has_impressions = True

    def __init__(self, directory: Path, *, prior_history: bool = True) -> None:
        if not directory.is_dir():
            msg = f"{directory}: no such folder; expected one with impressions.parquet"
            raise BadInputError(msg)
        self._prior = prior_history
        self._impressions = directory / "impressions.parquet"
        self._videos = directory / "videos.parquet"
        self._sequences = directory / "user_sequences.parquet"
        for path in self.sources():
            if not path.is_file():
                remedy = "; --no-prior-history does without" if path == self._sequences else ""
                msg = f"{path}: no such file{remedy}"
                raise BadInputError(msg)
        files = [open_parquet(self._impressions, _IMPRESSIONS)]
        if prior_history:
            files.append(open_parquet(self._sequences, _SEQUENCES))
        self.total = sum(file.metadata.num_rows for file in files)

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the manifest."""
        prior = (
            "Behaviours of source kuairand-prior come from user_sequences, which has no times: "
            "their order is real, their spacing (one second, ending at last_time_ms) is not."
        )
        return [
            "A click on an impression is a behaviour at the impression's time.",
            f"The category is the first tag; {UNKNOWN_TAG} is a video without one.",
            *([prior] if self._prior else ["user_sequences was left out."]),
        ]

    def sources(self) -> Sequence[Path]:
        """The input files."""
        prior = [self._sequences] if self._prior else []
        return [self._impressions, self._videos, *prior]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:  # noqa: ARG002
        """Earlier videos first, then impressions with their clicks."""
        with readable(self._videos):
            open_parquet(self._videos, _VIDEOS)
            videos = pq.read_table(self._videos, columns=list(_VIDEOS)).combine_chunks()
        categories = _Categories(videos)
        yield Batch(0, items=categories.items())
        done = 0
        if self._prior:
            for batch in batches(
                self._sequences, open_parquet(self._sequences, _SEQUENCES), list(_SEQUENCES)
            ):
                rows = _prior_clicks(batch, categories)
                good = self._checked(
                    self._sequences, rows, np.repeat(*_owners(batch, done)), rejects
                )
                done += batch.num_rows
                yield Batch(done, behaviors=good)
        file = open_parquet(self._impressions, _IMPRESSIONS)
        context = [name for name in _CONTEXT if name in file.schema_arrow.names]
        first = 1
        for batch in batches(self._impressions, file, [*_IMPRESSIONS, *context]):
            shown = _shown(batch, context)
            lines = np.arange(first, first + batch.num_rows)
            first += batch.num_rows
            done += batch.num_rows
            good = self._checked(self._impressions, shown, lines, rejects)
            clicks = good.filter(good["clicked"]).select(_COLUMNS)
            yield Batch(
                done,
                behaviors=_with_kind(clicks, "kuairand-log"),
                impressions=good,
            )

    def _checked(
        self, path: Path, rows: pa.Table, lines: NDArray[np.int64], rejects: Rejects
    ) -> pa.Table:
        """The rows that can be in the log."""
        missing = np.zeros(rows.num_rows, bool)
        for name in _COLUMNS:
            missing |= rows[name].is_null().to_numpy()
        ids = {name: _filled(rows[name]) for name in ("user_id", "item_id", "category_id")}
        times = _filled(rows["event_time"].cast(pa.int64()))
        fault = fault_codes(ids, times, np.zeros(len(times), np.int64))
        fault[missing] = FAULTS.index("missing_field")
        for row in np.flatnonzero(fault).tolist():
            values = {name: str(rows[name][row].as_py()) for name in _COLUMNS}
            rejects.add(path, int(lines[row]), FAULTS[fault[row]], str(values))
        return rows.filter(pa.array(fault == 0)) if fault.any() else rows


_COLUMNS: Final = ["user_id", "item_id", "category_id", "event_time"]


class _Categories:
    """The category of each video, by binary search."""

    def __init__(self, videos: pa.Table) -> None:
        known = videos.filter(pc.is_valid(videos["video_id"]))
        ids = known["video_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        self._ids, self._tags = ids[order], first_tags(known["tag"])[order]

    def items(self) -> pa.Table:
        """All videos."""
        return pa.table({"item_id": self._ids, "category_id": self._tags})

    def of(self, video_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The category of each; `UNKNOWN_TAG` for a video that is not in the table."""
        at = np.searchsorted(self._ids, video_ids).clip(max=len(self._ids) - 1)
        found: NDArray[np.int64] = np.where(self._ids[at] == video_ids, self._tags[at], UNKNOWN_TAG)
        return found


def first_tags(tags: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """`"12,65"` is 12; `unknown`, empty and null are `UNKNOWN_TAG`."""
    first = pc.replace_substring_regex(tags, r"^([0-9]{1,18}).*$", r"\1")
    number = pc.if_else(pc.match_substring_regex(first, r"^[0-9]{1,18}$"), first, None)
    found: NDArray[np.int64] = pc.fill_null(number.cast(pa.int64()), UNKNOWN_TAG).to_numpy()
    return found


def _owners(batch: pa.RecordBatch, done: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of a batch, and how many videos each has."""
    rows = np.arange(done + 1, done + batch.num_rows + 1)
    return rows, pc.fill_null(pc.list_value_length(batch["watch_seq"]), 0).to_numpy()


def _prior_clicks(batch: pa.RecordBatch, categories: _Categories) -> pa.Table:
    """One click a video, ending at `last_time_ms`, one second apart."""
    rows, lengths = _owners(batch, 0)
    owner = np.repeat(rows - 1, lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    seconds_before_last = ends - 1 - np.arange(len(owner))
    last = batch["last_time_ms"].take(pa.array(owner))
    videos = pc.list_flatten(batch["watch_seq"])
    table = pa.table(
        {
            "user_id": batch["user_id"].take(pa.array(owner)),
            "item_id": videos,
            "category_id": categories.of(_filled(videos)),
            "event_time": pc.subtract(last, pa.array(seconds_before_last * 1000)).cast(
                pa.timestamp("ms")
            ),
        }
    )
    return _with_kind(table, "kuairand-prior")


def _shown(batch: pa.RecordBatch, context: Sequence[str]) -> pa.Table:
    columns = {
        "user_id": batch["user_id"],
        "item_id": batch["video_id"],
        "category_id": first_tags(batch["tag"]),
        "event_time": batch["time_ms"].cast(pa.timestamp("ms")),
        "clicked": pc.fill_null(pc.not_equal(batch["is_click"], 0), fill_value=False),
    }
    return pa.table({**columns, **{name: batch[name].cast(_CONTEXT[name]) for name in context}})


def _with_kind(clicks: pa.Table, source: str) -> pa.Table:
    rows = clicks.num_rows
    codes = pa.array(np.full(rows, _CLICK, np.int8))
    sources = pa.repeat(pa.scalar(source), rows)
    return clicks.append_column("behavior", codes).append_column("source", sources)


def _filled(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    values: NDArray[np.int64] = pc.fill_null(column, 0).to_numpy()
    return values
