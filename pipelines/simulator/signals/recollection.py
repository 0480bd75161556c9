"""The past of each block of users, kept along a walk through the days or drawn again.

A block's past takes about 1 kB a user. Those of `_BLOCKS_KEPT` blocks, half a million users, are
kept; a walk through the days of more users draws the own acts of up to 29 days for each further
chunk, which takes about as many times as long.
"""

from typing import Final

from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.signals.own_acts import OwnActs, own_acts
from uic.pipelines.simulator.signals.past import MEMORY_DAYS, Past
from uic.pipelines.simulator.signals.rules import BlockDay, Rules
from uic.pipelines.simulator.signals.shown import Mind
from uic.pipelines.simulator.visits import Bargains
from uic.pipelines.simulator.world import Catalogue, UserBlock

_BLOCKS_KEPT: Final = 128


class Recollection:
    """What the users of each block did before a day; the same in whatever order it is asked for."""

    def __init__(self, plan: SimulationPlan, catalogue: Catalogue) -> None:
        self.plan = plan
        self.rules = Rules.of(plan, catalogue)
        self._catalogue = catalogue
        self._days: dict[int, tuple[OwnActs, Mind]] = {}

    def on(self, block: UserBlock, day: int) -> tuple[OwnActs, Mind]:
        """What a block does on a day, and what it has in mind."""
        kept = self._days.get(block.number)
        if kept is not None and kept[1].past.day == day:
            return kept
        scene, past = BlockDay.of(self.rules, self._catalogue, block, day), self._past(block, day)
        own = self._own_acts(scene)
        now = own, Mind.of(scene, past, own)
        if kept is not None or len(self._days) < _BLOCKS_KEPT:
            self._days[block.number] = now
        return now

    def _past(self, block: UserBlock, day: int) -> Past:
        # One day more than the memory: a day may have an hour less.
        first = max(0, day - MEMORY_DAYS - 1)
        past = Past.none(first)
        kept = self._days.get(block.number)
        if kept is not None and first <= kept[1].past.day < day:
            own, mind = kept
            past = mind.past.followed(mind.scene, own)
        while past.day < day:
            scene = BlockDay.of(self.rules, self._catalogue, block, past.day)
            past = past.followed(scene, self._own_acts(scene))
        return past

    def _own_acts(self, scene: BlockDay) -> OwnActs:
        return own_acts(scene, Bargains.on(self.plan, scene.catalogue, scene.day))
