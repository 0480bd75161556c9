"""How many behaviours of a day are exact repetitions: one user, item, behaviour and time, again.

A producer that sends at least once sends some events twice, and each counts: in memories, samples
and popularity. A shop may have true repetitions, so a gate tells the share and does not judge it.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.hashing import stable_hash
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.quality.rows import JudgedRows

# Above this share a remark is made: real clicks within one millisecond are much rarer.
REMARK_SHARE: Final = 0.001
# Of a larger day a share of all hashes is kept, the same for a row and its repetition: 32 MB.
_KEPT_ROWS: Final = 4_000_000


class Repetitions:
    """Counts the repetitions of one day.

    Args:
        rows: of the day, from its manifests.
    """

    def __init__(self, rows: int) -> None:
        self._step = np.uint64(rows // _KEPT_ROWS + 1)
        self._hashes: list[NDArray[np.uint64]] = []

    def add(self, rows: JudgedRows) -> None:
        """Take a batch of behaviours."""
        names = rows.batch.column("behavior").cast(pa.string())  # whatever they are: others judge
        codes = pc.fill_null(pc.index_in(names, value_set=pa.array(BEHAVIORS)), -1).to_numpy()
        hashes = stable_hash(rows.values("user_id"), 1)
        for seed, column in enumerate(
            (rows.values("item_id"), rows.values("event_time"), codes), 2
        ):
            hashes = stable_hash(hashes ^ column.astype(np.int64).astype(np.uint64), seed)
        self._hashes.append(hashes[hashes % self._step == 0])

    def count(self) -> int:
        """Rows that repeat another one of the day; of a large day an estimate."""
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *self._hashes])
        return int((len(hashes) - len(np.unique(hashes))) * self._step)


def repetition_remark(repeated: Mapping[date, int], rows: int) -> str | None:
    """What to say of the repetitions of some days; None if they are few."""
    total = sum(repeated.values())
    if not rows or total / rows <= REMARK_SHARE:
        return None
    most = max(repeated, key=lambda day: repeated[day])
    return (
        f"{total:,} of {rows:,} behaviours ({total / rows:.2%}) repeat another one to the "
        f"millisecond, most on {most} ({repeated[most]:,}); each counts: docs/operations.md says "
        "what a producer that sends at least once does"
    )
