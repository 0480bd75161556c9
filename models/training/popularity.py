"""What a model must be better than: popularity, a coin, and the rate of clicks.

None of them looks at a user. A model that is not above them is worth less than a count.
"""

import math
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from uic.models.memory.slot_use import SlotUse
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.metrics import Metrics, auc, auc_interval

# Below so many an AUC says little: at a click rate of a fifth its interval is 0.08 wide.
FEW_IMPRESSIONS: Final = 1000
# An item without impressions has this many, at the mean rate.
_PRIOR_IMPRESSIONS: Final = 10.0


@dataclass(frozen=True)
class SimpleBaselines:
    """Baselines of a test, from the training days alone.

    Attributes:
        popularity_auc: of an item's clicks on the training days; NaN where only one class occurs.
        click_share_auc: of an item's share of clicked impressions, smoothed; likewise.
        rate_logloss: of always saying the training days' rate of clicks, in nats.
    """

    popularity_auc: float
    click_share_auc: float
    rate_logloss: float

    def to_json(self) -> dict[str, float | None]:
        """As JSON; NaN becomes null."""
        return {name: None if math.isnan(v) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{name: math.nan if v is None else v for name, v in document.items()})


def simple_baselines(
    reader: SamplesReader, train: tuple[date, date], test: tuple[date, date]
) -> SimpleBaselines:
    """Measure the baselines; reads items and labels, and no history.

    Args:
        reader: of the samples.
        train: first and last day of training.
        test: first and last day of the test.
    """
    items, labels = reader.shown_items(BatchPlan(first=train[0], last=train[1]))
    tested, clicked = reader.shown_items(BatchPlan(first=test[0], last=test[1]))
    clicks, share = click_share(items, labels, tested)
    rate = float(labels.mean()) if len(labels) else 0.5
    said = min(max(rate, 1e-6), 1 - 1e-6)
    clicked_share = float(clicked.mean()) if len(clicked) else math.nan
    return SimpleBaselines(
        popularity_auc=auc(clicks, clicked),
        click_share_auc=auc(share, clicked),
        rate_logloss=-(clicked_share * math.log(said) + (1 - clicked_share) * math.log(1 - said)),
    )


def click_share(
    items: NDArray[np.int64], labels: NDArray[np.bool_], asked: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clicks of items, and their share of clicked impressions, smoothed towards the mean rate.

    Args:
        items: (n,) shown on the training days.
        labels: (n,), clicked.
        asked: (m,) items.

    Returns:
        (m,) each.
    """
    known, index = np.unique(np.concatenate([items, asked]), return_inverse=True)
    shown = np.bincount(index[: len(items)], minlength=len(known))
    clicks = np.bincount(index[: len(items)], weights=labels, minlength=len(known))
    rate = float(labels.mean()) if len(labels) else 0.5
    share = (clicks + _PRIOR_IMPRESSIONS * rate) / (shown + _PRIOR_IMPRESSIONS)
    of_asked = index[len(items) :]
    return clicks[of_asked], share[of_asked]


def remarks(
    metrics: Metrics, baselines: SimpleBaselines | None, more_by: str = "--test-days"
) -> list[str]:
    """What a person should know before they trust these metrics; empty if nothing.

    Args:
        metrics: of a test.
        baselines: of the same test.
        more_by: option that makes the test larger.
    """
    lines = []
    if math.isnan(metrics.auc):
        lines.append(
            "there is no AUC: scores are not numbers, or the test has only clicked impressions "
            "or none"
        )
    elif metrics.auc < 0.5:
        lines.append(f"AUC {metrics.auc:.4f} is below a coin's 0.5: the order is worse than chance")
    if metrics.impressions < FEW_IMPRESSIONS and not math.isnan(metrics.auc):
        low, high = auc_interval(metrics)
        lines.append(
            f"{metrics.impressions:,} test impressions are few: AUC is between {low:.3f} and "
            f"{high:.3f} (95 %); take more with {more_by}"
        )
    if baselines is None:
        return lines
    best = max(baselines.popularity_auc, baselines.click_share_auc)
    if metrics.auc < best:
        lines.append(
            f"counting an item's clicks has AUC {best:.4f}, more than this model's "
            f"{metrics.auc:.4f}"
        )
    if metrics.logloss > baselines.rate_logloss:
        lines.append(
            f"always saying the rate of clicks has LogLoss {baselines.rate_logloss:.4f}, less than "
            f"this model's {metrics.logloss:.4f}: its probabilities are worse than a constant"
        )
    return lines


def rising(validation: dict[str, Any] | None) -> list[str]:
    """A remark on a run whose last epoch was its best, so that more might have been better.

    Args:
        validation: `uic.models.training.trainer.Trained.validation`; None without validation days.
    """
    if not validation or not 1 < validation["most_epochs"] == validation["kept_epoch"]:
        return []
    most = validation["most_epochs"]
    line = (
        f"the last of {most} epochs was the best by the validation days: AUC was still rising; "
        f"give --epochs {2 * most}, or a larger learning_rate"
    )
    return [line]


def remarks_of(document: dict[str, Any]) -> list[str]:
    """The remarks of a bundle's `metrics.json`: of its epochs, slots, and test."""
    slots = document.get("slots")
    remark = SlotUse.from_json(slots).remark() if slots else None
    lines = rising(document.get("validation")) + ([] if remark is None else [remark])
    if not document.get("test"):
        return lines
    baselines = document.get("baselines")
    of_test = remarks(
        Metrics.from_json({"gauc_impressions": 0, **document["test"]}),
        SimpleBaselines.from_json(baselines) if baselines else None,
    )
    return [*of_test, *lines]
