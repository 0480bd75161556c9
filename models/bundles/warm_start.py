"""Starting from an older bundle's weights (DICM, section 7.5: partial warm-up).

`full` copies everything; `except_ids` leaves the embeddings of items and categories random, which
the paper found better: an embedding that starts where yesterday's training ended overfits the
days that both have seen. The optimiser starts anew in both.
"""

import json
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from uic.models.bundles.bundle import Bundle
from uic.models.bundles.documents import BundleError
from uic.models.rankers.ranker import Ranker
from uic.models.samples.vocabulary import IdTable, Vocabulary

_EMBEDDING = "embedding."
_TASK_HEADS = "task_heads."


def warm_start(bundle: Bundle, *, except_ids: bool) -> Callable[[Ranker, Vocabulary], None]:
    """What `Trainer.prepare` needs to start from `bundle`.

    Args:
        bundle: of the same model with the same widths.
        except_ids: leave out the embeddings.
    """

    @torch.no_grad()
    def prepare(model: Ranker, vocabulary: Vocabulary) -> None:
        weights = bundle.model.state_dict()
        skipped = (_EMBEDDING, *model.PER_ROW, *(model.HASHED_IDS if except_ids else ()))
        for name, tensor in model.state_dict().items():
            # A task that the bundle does not know begins anew.
            new_task = name.startswith(_TASK_HEADS) and name not in weights
            if name.startswith(skipped) or new_task:
                continue
            if name not in weights or weights[name].shape != tensor.shape:
                there = list(weights[name].shape) if name in weights else "missing"
                msg = (
                    f"{bundle.path}: tensor {name} is {there}, this run has "
                    f"{list(tensor.shape)}; {_what_to_do(bundle, model)}"
                )
                raise BundleError(msg)
            tensor.copy_(weights[name])
        if except_ids:
            return
        old, new = bundle.model.embedding, model.embedding
        for source, target, before, now in (
            (old.item, new.item, bundle.vocabulary.item, vocabulary.item),
            (old.category, new.category, bundle.vocabulary.category, vocabulary.category),
        ):
            if source.shape[1] != target.shape[1]:
                msg = (
                    f"{bundle.path}: embeddings of width {source.shape[1]}, this run has "
                    f"{target.shape[1]}; use --except-ids, or the same width"
                )
                raise BundleError(msg)
            rows, old_rows = shared_rows(before, now)
            target[torch.from_numpy(rows)] = source[torch.from_numpy(old_rows)]

    return prepare


def _what_to_do(bundle: Bundle, model: Ranker) -> str:
    """How a run gets the tensors of a bundle that was trained with other settings."""
    if not isinstance(model.hyper_parameters, type(bundle.settings)):
        return f"it is a bundle of {bundle.config.model}; start from one of the model to be trained"
    there, here = (one.model_dump(mode="json") for one in (bundle.settings, model.hyper_parameters))
    other = {key: of for key, of in there.items() if of != here[key] and not _only_starts(key)}
    options = " ".join(f"--set {key}={_as_option(value)}" for key, value in other.items())
    if not options:
        return "start from a bundle of the same model, features and labels"
    return f"train as it was trained, with {options}, or start from a bundle of this run's settings"


def _only_starts(key: str) -> bool:
    """Whether a setting is of initial weights, which are copied over, or a name for others."""
    return key.endswith("_std") or key in {"controller_half_life_events", "form"}


def _as_option(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def shared_rows(before: IdTable, now: IdTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the ids that both tables know: in the new table, and in the old one.

    Spare rows are not copied: with another number of them an id hashes elsewhere.
    """
    known, rows, old_rows = np.intersect1d(
        now.ids, before.ids, assume_unique=True, return_indices=True
    )
    del known
    return rows, old_rows
