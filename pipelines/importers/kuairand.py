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

from uic.models.errors import BadInputError
from uic.pipelines.importers.checked import Columns, accept, payload_of, whole_numbers
from uic.pipelines.importers.kuairand_features import context_features, static_features
from uic.pipelines.importers.labels import LabelColumn, label_values
from uic.pipelines.importers.parquet import TypeCheck, batches, is_integer_list, open_parquet
from uic.pipelines.importers.source import Batch, IdNumbers, Rejects, readable
from uic.pipelines.log.schemas import BEHAVIORS

_INT: Final = pa.types.is_integer
_IMPRESSIONS: Final[dict[str, TypeCheck]] = {
    "user_id": _INT,
    "video_id": _INT,
    "tag": pa.types.is_string,
    "time_ms": _INT,
    "is_click": _INT,
}
# What was known when the video was shown. What happened after comes in as labels or not at all, or
# a model could read the click off it.
_CONTEXT: Final[dict[str, pa.DataType]] = {
    "tab": pa.int16(),
    "is_rand": pa.bool_(),
    "duration_ms": pa.int64(),
    "author_id": pa.int64(),
}
_LABELS: Final = ("long_view", "is_like", "is_follow")
_SEQUENCES: Final[dict[str, TypeCheck]] = {
    "user_id": _INT,
    "last_time_ms": _INT,
    "watch_seq": is_integer_list,
}
_VIDEOS: Final[dict[str, TypeCheck]] = {"video_id": _INT, "tag": pa.types.is_string}
# No video of the set has a tag 0; a video without a tag, or not in `videos`, has this category.
UNKNOWN_TAG: Final = 0
_CLICK: Final = BEHAVIORS.index("click")
_BEHAVIOR: Final = ["user_id", "item_id", "category_id", "behavior", "event_time"]


class KuaiRand:
    """`impressions.parquet`, `videos.parquet` and `user_sequences.parquet` of a folder.

    `user_features.parquet` is read if it is there, and makes features of users.

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
        prior = (
            "Behaviours of source kuairand-prior come from user_sequences, which has no times: "
            "their order is real, their spacing (one second, ending at last_time_ms) is not."
        )
        self.notes: Sequence[str] = (
            "A click on an impression is a behaviour at the impression's time.",
            f"The category is the first tag; {UNKNOWN_TAG} is a video without one.",
            prior if prior_history else "user_sequences was left out.",
            "Features of user_features and videos have no dates: they count as always known.",
        )
        self._impressions = directory / "impressions.parquet"
        self._videos = directory / "videos.parquet"
        self._users = directory / "user_features.parquet"
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

    def sources(self) -> Sequence[Path]:
        """The input files."""
        prior = [self._sequences] if self._prior else []
        users = [self._users] if self._users.is_file() else []
        return [self._impressions, self._videos, *prior, *users]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:  # noqa: ARG002
        """Earlier videos first, then impressions with their clicks."""
        with readable(self._videos):
            open_parquet(self._videos, _VIDEOS)
            videos = pq.read_table(self._videos, columns=list(_VIDEOS)).combine_chunks()
        categories = _Categories(videos)
        features = static_features(self._users, self._videos)
        yield Batch(0, items=categories.items(), features=features)
        done = 0
        if self._prior:
            file = open_parquet(self._sequences, _SEQUENCES)
            for batch in batches(self._sequences, file, list(_SEQUENCES)):
                earlier = _prior_clicks(batch, categories, done + 1)
                clicks = accept(self._sequences, earlier, rejects)
                done += batch.num_rows
                yield Batch(done, behaviors=_from(clicks, "kuairand-prior"))
        file = open_parquet(self._impressions, _IMPRESSIONS)
        names = [name for name in _CONTEXT if name in file.schema_arrow.names]
        labels = [name for name in _LABELS if name in file.schema_arrow.names]
        first = 1
        for batch in batches(self._impressions, file, [*_IMPRESSIONS, *names, *labels]):
            shown, clicked = _shown(batch, first)
            context = {name: self._context(batch, name) for name in names}
            for name in labels:
                label = LabelColumn(name, name)
                where = f"{self._impressions}: column {name}"
                context[label.logged] = label_values(where, label, batch[name], shown.faults)
            good = accept(
                self._impressions, shown, rejects, {"clicked": pa.array(clicked), **context}
            )
            first += batch.num_rows
            done += batch.num_rows
            clicks = good.filter(good["clicked"]).select(_BEHAVIOR)
            yield Batch(
                done,
                behaviors=_from(clicks, "kuairand-log"),
                impressions=good.drop_columns(["behavior"]),
                features=context_features(good),
            )

    def _context(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        try:
            return batch[name].cast(_CONTEXT[name])
        except pa.ArrowException as error:
            msg = (
                f"{self._impressions}: column {name} is {batch[name].type}, expected what fits "
                f"{_CONTEXT[name]} ({error}); correct it or leave the column out"
            )
            raise BadInputError(msg) from error


class _Categories:
    """The category of each video, by binary search."""

    def __init__(self, videos: pa.Table) -> None:
        faults = np.zeros(videos.num_rows, np.int8)
        ids = whole_numbers(videos["video_id"], faults)
        known = np.flatnonzero((faults == 0) & (ids >= 0))
        order = known[np.argsort(ids[known], kind="stable")]
        self._ids, self._tags = ids[order], first_tags(videos["tag"])[order]

    def items(self) -> pa.Table:
        """All videos."""
        return pa.table({"item_id": self._ids, "category_id": self._tags})

    def of(self, video_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The category of each; `UNKNOWN_TAG` for a video that is not in the table."""
        if not len(self._ids):
            return np.full(len(video_ids), UNKNOWN_TAG)
        at = np.searchsorted(self._ids, video_ids).clip(max=len(self._ids) - 1)
        categories: NDArray[np.int64] = np.where(
            self._ids[at] == video_ids, self._tags[at], UNKNOWN_TAG
        )
        return categories


def first_tags(tags: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """`"12,65"` is 12; `unknown`, empty and null are `UNKNOWN_TAG`."""
    first = pc.replace_substring_regex(tags, r"^([0-9]{1,18}).*$", r"\1")
    number = pc.if_else(pc.match_substring_regex(first, r"^[0-9]{1,18}$"), first, None)
    tags_of_rows: NDArray[np.int64] = pc.fill_null(number.cast(pa.int64()), UNKNOWN_TAG).to_numpy()
    return tags_of_rows


def _prior_clicks(batch: pa.RecordBatch, categories: _Categories, first: int) -> Columns:
    """One click a video, ending at `last_time_ms`, one second apart; `first` is the first line."""
    lengths = pc.fill_null(pc.list_value_length(batch["watch_seq"]), 0).to_numpy()
    owner = np.repeat(np.arange(batch.num_rows), lengths)
    seconds_before_last = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(owner))
    faults = np.zeros(len(owner), np.int8)
    owners = pa.array(owner)
    videos = whole_numbers(pc.list_flatten(batch["watch_seq"]), faults)
    last = whole_numbers(batch["last_time_ms"].take(owners), faults)
    users = whole_numbers(batch["user_id"].take(owners), faults)
    return Columns(
        user_ids=users,
        item_ids=videos,
        category_ids=categories.of(videos),
        behaviors=np.full(len(owner), _CLICK, np.int64),
        times_ms=last - seconds_before_last * 1000,
        faults=faults,
        lines=first + owner,
        payload=lambda row: payload_of(batch)(int(owner[row])),
    )


def _shown(batch: pa.RecordBatch, first: int) -> tuple[Columns, NDArray[np.bool_]]:
    """The impressions, and which were clicked; `first` is the first line."""
    rows = batch.num_rows
    faults = np.zeros(rows, np.int8)
    clicked = whole_numbers(batch["is_click"], faults) != 0
    columns = Columns(
        user_ids=whole_numbers(batch["user_id"], faults),
        item_ids=whole_numbers(batch["video_id"], faults),
        category_ids=first_tags(batch["tag"]),
        behaviors=np.full(rows, _CLICK, np.int64),
        times_ms=whole_numbers(batch["time_ms"], faults),
        faults=faults,
        lines=np.arange(first, first + rows),
        payload=payload_of(batch),
    )
    return columns, clicked


def _from(clicks: pa.Table, source: str) -> pa.Table:
    return clicks.append_column("source", pa.repeat(pa.scalar(source), clicks.num_rows))
