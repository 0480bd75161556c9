"""A part of a record of your own: at which hour of the day this user comes.

    python examples/own_part.py var/own-part

It has a number of bytes, a fold, and a read; the tests hold it by the laws of every part. In a
`state.yaml` it is `hours: {kind: "own_part:Hours"}`, with the folder of this file in PYTHONPATH.
"""

import sys
from pathlib import Path

import numpy as np
from pydantic import Field

import uic
from uic.models.features.definition import Scale
from uic.models.records.positions import EventBatch
from uic.models.settings import Section
from uic.models.state.part import Asked, Features, PartFeature, StatePart, States

MOST = np.iinfo(np.uint16).max


class HoursSettings(Section):
    """How the day is cut."""

    slots: int = Field(24, ge=4, le=96, multiple_of=4, description="of a day, UTC; 4 to 96")


class Hours(StatePart):
    """Events by slot of the day; the share of the slot that it is now."""

    settings_type = HoursSettings
    settings: HoursSettings

    @property
    def bytes(self) -> int:
        """Of a state: two a slot."""
        return 2 * self.settings.slots

    @property
    def described(self) -> tuple[PartFeature, ...]:
        """`share`."""
        return (PartFeature("share", "share of this time of day among all events", Scale.NONE),)

    def _slots(self, times_ms: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> States:
        return (times_ms % 86_400_000 * self.settings.slots // 86_400_000).astype(np.uint8)

    def fold(self, states: States, events: EventBatch) -> None:
        """Count each event in its slot; a full one stays."""
        counts = states.view(np.uint16)
        added = np.zeros(counts.shape, np.int64)
        np.add.at(added, (events.user_index, self._slots(events.log_times_ms)), 1)
        counts[...] = np.minimum(counts + added, MOST)

    def features(self, states: States, asked: Asked) -> Features:
        """NaN for a user without an event."""
        counts = states.view(np.uint16)[asked.owners].astype(np.float32)
        here = counts[np.arange(len(asked)), self._slots(asked.now_ms)]
        total = counts.sum(axis=1)
        return np.where(total > 0, here / np.maximum(total, 1), np.nan)[:, None].astype(np.float32)


def main(folder: Path) -> None:
    """Draw a small log, and say what the part holds at its end."""
    sys.path.insert(0, str(Path(__file__).parent))
    workspace = uic.Workspace(folder)
    workspace.simulate(users=50, days=3, items=100)
    (folder / "state.yaml").write_text(
        'version: 1\nparts:\n  hours: {kind: "own_part:Hours"}\n', encoding="utf-8"
    )
    [found] = workspace.state.check().features
    print(f"{found.name}: known of {found.known:.0%} of users, median {found.median:.2f}")
    print(f"published as {workspace.state.publish()}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/own-part"))
