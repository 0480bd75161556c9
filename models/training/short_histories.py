"""Some impressions as a newer user would have had them: a log may have hardly any of those.

Where every user of the training days has a long history, a network never sees what a record holds
after no or few events, and what it says of new users is anything: on the simulator probabilities of
0.02 where 0.3 is right. The features of such impressions stay as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from uic.models.samples.groups import GroupBatch
from uic.models.training.run_spec import RunSpec


def shortened(
    batches: Iterable[GroupBatch], spec: RunSpec, epoch: int, first: int
) -> Iterator[GroupBatch]:
    """An epoch's batches from number `first` on, each with `train.short_history_share` of a run."""
    for number, batch in enumerate(batches, start=first):
        place = (spec.seed, epoch, number)
        yield with_short_histories(batch, spec.training.short_history_share, place)


def with_short_histories(batch: GroupBatch, share: float, seed: tuple[int, ...]) -> GroupBatch:
    """The batch with some impressions that see only the first events of their group.

    Args:
        batch: of groups.
        share: of the impressions, 0 to 1.
        seed: of the draw, with the place of the batch in the run: the same for the same.

    Returns:
        Each of the drawn impressions sees k of its n events, log(1 + k) even from 0 to
        log(1 + n): half of them fewer than the square root of n. Events that no impression sees
        any more are not in the batch, as in every other: a penalty would count them.
    """
    if not share:
        return batch
    draw = np.random.default_rng(seed)
    chosen = draw.random(batch.impressions) < share
    even = draw.random(batch.impressions)
    lengths = batch.history_lengths
    fewer = np.minimum(np.expm1(even * np.log1p(lengths)).astype(np.int64), lengths)
    shown = replace(batch, history_lengths=np.where(chosen, fewer, lengths))
    return shown.select(np.arange(batch.groups))  # cut after the last event that is still seen
