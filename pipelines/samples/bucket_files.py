"""Writes the groups of one bucket, one file a day, under names that no other attempt uses."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from uic.models.errors import BadInputError
from uic.models.published import drafted_part, sha256_of
from uic.pipelines.samples.build import BuildFacts, GroupedBucket
from uic.pipelines.samples.encoding import parquet_writer
from uic.pipelines.samples.plan import SamplesPlan
from uic.pipelines.samples.sizes import SampleSizes, sizes_of

DRAFT_SUFFIX: Final = ".draft"


class SamplesWriteError(BadInputError):
    """A file of samples could not be written: the disk is full, or the folder is not writable."""


@dataclass(frozen=True)
class DraftFile:
    """A written file that no manifest names yet; paths are relative to the samples' folder."""

    path: str
    final_path: str
    dt: date
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class BucketResult:
    """What travels on from a bucket: its files, and what happened to its rows."""

    bucket: int
    facts: BuildFacts
    sizes: SampleSizes = field(default_factory=SampleSizes)
    files: tuple[DraftFile, ...] = ()


def bucket_writer(root: Path, plan: SamplesPlan) -> Callable[[int, GroupedBucket], BucketResult]:
    """A function that writes a bucket's groups under `root`, which all workers must share.

    Raises (the function):
        SamplesWriteError: names the file and the system's reason.
    """

    def write(bucket: int, groups: GroupedBucket) -> BucketResult:
        sizes = SampleSizes()
        files = []
        for index in np.unique(groups.group_days).tolist():
            file, of_day = _write_day(root, plan, bucket, groups, index)
            files.append(file)
            sizes += of_day
        return BucketResult(bucket, groups.facts, sizes, tuple(files))

    return write


def _write_day(
    root: Path, plan: SamplesPlan, bucket: int, groups: GroupedBucket, index: int
) -> tuple[DraftFile, SampleSizes]:
    day = plan.days.day(index)
    first, last = np.searchsorted(groups.group_days, [index, index + 1]).tolist()
    folder = root / f"dt={day}"
    path = folder / f"{bucket:05d}-{uuid.uuid4().hex}{DRAFT_SUFFIX}"
    sizes = SampleSizes()
    # Synced here, beside the other threads' work; publishing syncs again, at no cost.
    with drafted_part(path, SamplesWriteError), parquet_writer(path, groups.schema) as writer:
        for table in groups.tables(first, last):
            writer.write_table(table)
            sizes += sizes_of(table, plan.samples.history_cap)
    digest, size = sha256_of(path), path.stat().st_size
    relative = path.relative_to(root).as_posix()
    final = f"dt={day}/{bucket:05d}-{digest[:16]}.parquet"
    return DraftFile(relative, final, day, last - first, size, digest), sizes
