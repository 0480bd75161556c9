"""The loss of a batch: cross-entropy of the click, and of each label beside it."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from uic.models.rankers.ranker import click_logits
from uic.models.samples.batch import RankerBatch


def cross_entropy(
    all_logits: Tensor,
    batch: RankerBatch,
    tasks: Mapping[str, float],
    impressions: int | None = None,
) -> Tensor:
    """Mean cross-entropy of clicks, plus `weight` times that of each task's label.

    A label that is not known adds nothing, to the value or to any gradient. Sums are divided by
    all impressions, also those whose label is not known: so a known one weighs the same in
    whatever batch it stands, and parts of a batch add up.

    Args:
        all_logits: `uic.models.rankers.ranker.Outputs.all_logits`.
        batch: with a label for each task.
        tasks: label -> weight, in the order of the logits.
        impressions: of the whole batch, if `batch` is a part of it; None means it is no part.

    Returns:
        Scalar.
    """
    logits = click_logits(all_logits)
    if impressions is None:
        loss = binary_cross_entropy_with_logits(logits, batch.labels)
        impressions = logits.numel()
    else:
        loss = binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum") / impressions
    for column, (name, weight) in enumerate(tasks.items(), start=1):
        labels = batch.extra_labels[name]
        known = labels >= 0
        # A selection and no product with 0: what is masked may be anything, infinite included.
        chosen, expected = all_logits[:, column][known], labels[known].to(all_logits.dtype)
        total = binary_cross_entropy_with_logits(chosen, expected, reduction="sum")
        loss = loss + weight * total / impressions
    return loss
