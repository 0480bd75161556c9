"""Scores of a model on some days, and the metrics of those scores."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import NOT_KNOWN, GroupBatch
from uic.models.training.metrics import Metrics, measure


@dataclass(frozen=True)
class Scores:
    """What a model says of impressions, and what came true.

    Attributes:
        logits: (impressions,), of a click.
        clicked: (impressions,) bool.
        users: (impressions,) int64.
        tasks: of each label beside the click: its logits (impressions,) and the labels
            (impressions,) int8, 1, 0 or `uic.models.samples.groups.NOT_KNOWN`.
    """

    logits: NDArray[np.float64]
    clicked: NDArray[np.bool_]
    users: NDArray[np.int64]
    tasks: dict[str, tuple[NDArray[np.float64], NDArray[np.int8]]]

    def metrics(self) -> Metrics:
        """AUC, GAUC and LogLoss of the click, and of each task over what is known."""
        tasks = {}
        for name, (logits, labels) in self.tasks.items():
            known = labels >= 0
            tasks[name] = measure(logits[known], labels[known] == 1, self.users[known])
        return replace(measure(self.logits, self.clicked, self.users), tasks=tasks)

    def together(self, gather: Callable[[NDArray[Any]], NDArray[Any]]) -> "Scores":
        """Those of all ranks, from each one's own.

        Args:
            gather: an array of every rank, one after the other.
        """
        return Scores(
            gather(self.logits),
            gather(self.clicked.view(np.uint8)).view(np.bool_),
            gather(self.users),
            {name: (gather(own[0]), gather(own[1])) for name, own in self.tasks.items()},
        )


@torch.no_grad()
def score_tasks(
    model: Ranker,
    batches: Iterable[GroupBatch],
    encoder: Encoder,
    advance: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Score every impression, with all heads.

    Args:
        model: put into evaluation mode, and back into the mode it was in.
        batches: of the days to score; a label that they do not have is not known.
        encoder: of the model's vocabulary.
        advance: told the impressions of each batch, for a progress display.

    Returns:
        In the order of the batches.
    """
    was_training = model.training
    model.eval()
    scores = [np.zeros((0, 1 + len(model.tasks)))]
    labels = [np.zeros(0, dtype=np.bool_)]
    users = [np.zeros(0, dtype=np.int64)]
    extra = {name: [np.zeros(0, dtype=np.int8)] for name in model.tasks}
    for batch in batches:
        encoded = encoder.encode(batch)
        logits = model.all_logits(encoded) if model.tasks else model(encoded)
        columns = logits if logits.ndim == 2 else logits.unsqueeze(1)
        scores.append(columns.cpu().numpy().astype(np.float64))
        labels.append(batch.labels)
        users.append(batch.user_ids[batch.impression_groups])
        for name, found in extra.items():
            unknown = np.full(batch.impressions, NOT_KNOWN, dtype=np.int8)
            found.append(batch.extra_labels.get(name, unknown))
        advance(batch.impressions)
    model.train(was_training)
    all_logits = np.concatenate(scores)
    tasks = {
        name: (np.ascontiguousarray(all_logits[:, column]), np.concatenate(extra[name]))
        for column, name in enumerate(model.tasks, start=1)
    }
    clicks = np.ascontiguousarray(all_logits[:, 0])
    return Scores(clicks, np.concatenate(labels), np.concatenate(users), tasks)


def score(
    model: Ranker,
    batches: Iterable[GroupBatch],
    encoder: Encoder,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Logits of a click, labels and users; arguments and order as in `score_tasks`."""
    scores = score_tasks(model, batches, encoder, advance)
    return scores.logits, scores.clicked, scores.users


def evaluate(
    model: Ranker,
    batches: Iterable[GroupBatch],
    encoder: Encoder,
    advance: Callable[[int], None] = lambda _: None,
) -> Metrics:
    """AUC, GAUC and LogLoss of a model's heads; arguments as in `score_tasks`."""
    return score_tasks(model, batches, encoder, advance).metrics()
