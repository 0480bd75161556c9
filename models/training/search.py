"""Successive halving over shares of the training days (Jamieson and Talwalkar, AISTATS 2016).

1. Draw settings at random, the defaults before them, and train each on the last days alone.
2. Keep the best third by the validation days, train them on more days, and again on all.
3. The best on the largest share is what was found; the defaults come along as what it is beside.

Nothing here draws on a clock or on chance: the same search twice says the same, and one that was
cut off goes on with what it had tried.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

SHARES: Final = (0.25, 0.5, 1.0)
# Of those that were trained on a share, so many go on to the next.
_KEPT: Final = 1 / 3
_FEWEST_KEPT: Final = 2


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        settings: what differs from the defaults; empty for the defaults.
        share: of the training days.
        auc: of the validation days, after the best epoch.
        epochs: that were trained; 0 where the loss became infinite, and the AUC is 0.
    """

    settings: Mapping[str, Any]
    share: float
    auc: float
    epochs: int


def draws(
    space: Mapping[str, Sequence[Any]], defaults: Mapping[str, Any], count: int, seed: int
) -> list[dict[str, Any]]:
    """`count` different settings, the defaults first, or all that the space has.

    Args:
        space: the values of each key.
        defaults: value of each key that is trained with if nothing is said.
        count: at least 1.
        seed: of the draw.

    Returns:
        What differs from the defaults, each.
    """
    keys = sorted(space)
    all_of_them = [
        {key: value for key, value in zip(keys, values, strict=True) if value != defaults[key]}
        for values in itertools.product(*(space[key] for key in keys))
    ]
    others = [settings for settings in all_of_them if settings]
    order = np.random.default_rng(seed).permutation(len(others))
    return [{}, *(others[place] for place in order[: count - 1])]


def halving(
    settings: Sequence[Mapping[str, Any]], train: Callable[[Mapping[str, Any], float], Trial]
) -> Iterator[Trial]:
    """Train on growing shares, the best of each on the next; each trial as it is done.

    Args:
        settings: to begin with, the defaults first.
        train: on a share of the training days.
    """
    for share in SHARES:
        trials = []
        for one in settings:
            trials.append(train(one, share))
            yield trials[-1]
        kept = max(_FEWEST_KEPT, math.ceil(len(trials) * _KEPT))
        ranked = sorted(trials, key=lambda trial: -trial.auc)[:kept]
        # The defaults first: what was found in time is said beside them, on the same share.
        settings = [trials[0].settings, *(trial.settings for trial in ranked if trial.settings)]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The best on the largest share that any was trained on; the defaults where they are as good.

    Trials of different shares cannot be compared: more days are a better AUC for all. A share that
    the defaults alone were trained on says nothing yet of the others.
    """
    counts = Counter(trial.share for trial in trials)
    share = max(trials, key=lambda trial: (counts[trial.share] > 1, trial.share)).share
    return max(
        (trial for trial in trials if trial.share == share),
        key=lambda trial: (trial.auc, not trial.settings),
    )
