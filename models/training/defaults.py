"""What a model trains with if nothing is said, where all do not, and what a search tries for it.

`uic tune MODEL --samples NAME` searches; defaults are what it found on two logs (docs/models.md,
"Defaults that learn"). The section `train` of `uic.yaml` and `--set` win over them. A model that
is not named has those of its settings: a table here, and no field of the catalogue, so that a model
from outside needs neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

# An id that is seldom seen keeps the noise that its row began with: the less of it, the better each
# search found these.
_NARROW: Final[Mapping[str, Any]] = {"embedding_std": 0.02}
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "average_pooling": _NARROW,
    "two_pools": _NARROW,
    # Scores of slots begin as far apart as with embeddings of 0.1.
    "mimn": {**_NARROW, "routing_std": 10.0},
    "din": _NARROW,
}

_SHARED: Final[Mapping[str, Sequence[Any]]] = {
    "learning_rate": (0.0005, 0.001, 0.002, 0.005),
    "batch_impressions": (128, 256, 512, 1024),
    "embedding_std": (0.01, 0.02, 0.05, 0.1),
    "min_count": (1, 2, 5),
}
_LIMITS: Final = {"history_limit": (50, 200, 1000)}
_OWN: Final[Mapping[str, Mapping[str, Sequence[Any]]]] = {
    "mimn": {"slots": (1, 4, 8), "controller": (32, 64, 128)},
    "two_pools": {"half_life_events": (1, 3, 10)},
    "imn": {"history_limit": (200, 1000), "iterations": (1, 2, 3)},
    "din": _LIMITS,
    "dien": _LIMITS,
    "gru4rec": _LIMITS,
    "arnn": _LIMITS,
    "rum": _LIMITS,
    "sasrec": _LIMITS,
    "lmn": _LIMITS,
}


def searched(model: str) -> dict[str, Sequence[Any]]:
    """The settings that a search tries, with the values of each."""
    return {**_SHARED, **_OWN.get(model, {})}
