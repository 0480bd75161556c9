"""Scores of a model on some days, and the metrics of those scores."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch
from uic.models.training.metrics import Metrics, measure


@torch.no_grad()
def score(
    model: Ranker,
    batches: Iterable[GroupBatch],
    encoder: Encoder,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Score every impression.

    Args:
        model: put into evaluation mode, and back into the mode it was in.
        batches: of the days to score.
        encoder: of the model's vocabulary.
        advance: told the impressions of each batch, for a progress display.

    Returns:
        Logits, labels and users: each (impressions,), in the order of the batches.
    """
    was_training = model.training
    model.eval()
    scores = [np.zeros(0)]
    labels = [np.zeros(0, dtype=np.bool_)]
    users = [np.zeros(0, dtype=np.int64)]
    for batch in batches:
        logits = model(encoder.encode(batch))
        scores.append(logits.cpu().numpy().astype(np.float64))
        labels.append(batch.labels)
        users.append(batch.user_ids[batch.impression_groups])
        advance(batch.impressions)
    model.train(was_training)
    return np.concatenate(scores), np.concatenate(labels), np.concatenate(users)


def evaluate(
    model: Ranker,
    batches: Iterable[GroupBatch],
    encoder: Encoder,
    advance: Callable[[int], None] = lambda _: None,
) -> Metrics:
    """AUC, GAUC and LogLoss of a model; arguments as in `score`."""
    return measure(*score(model, batches, encoder, advance))
