"""What samples look like: impressions and clicks a day, lengths of histories, items' shares."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.published import read_manifest
from uic.models.samples.schema import SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.pipelines.log.profile import Tally


@dataclass(frozen=True)
class SamplesProfile:
    """Counts of published samples.

    Attributes:
        impressions: by day, ISO.
        clicks: by day, ISO.
        histories: (impressions,) int64, events that each impression sees.
        of_items: (items,) impressions of each item, ascending.
    """

    impressions: dict[str, int]
    clicks: dict[str, int]
    histories: NDArray[np.int64]
    of_items: NDArray[np.int64]


def samples_profile(root: Path) -> SamplesProfile:
    """Read samples, once: impressions alone, as histories are large.

    Raises:
        ManifestError: they are not published, or are damaged.
    """
    manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    impressions: Counter[str] = Counter()
    clicks: Counter[str] = Counter()
    items, lengths = Tally(), [np.zeros(0, np.int64)]
    for entry in manifest["files"]:
        with pq.ParquetFile(root / entry["path"]) as opened:
            table = opened.read(columns=["item_ids", "labels", "history_lengths"])
        shown, clicked = (pc.list_flatten(table[name]) for name in ("item_ids", "labels"))
        impressions[entry["dt"]] += len(shown)
        clicks[entry["dt"]] += pc.sum(clicked).as_py() or 0
        items.add(shown)
        lengths.append(pc.list_flatten(table["history_lengths"]).to_numpy().astype(np.int64))
    return SamplesProfile(
        dict(sorted(impressions.items())),
        {day: clicks[day] for day in sorted(impressions)},
        np.concatenate(lengths),
        items.counts(),
    )
