"""Where a training run was when it was killed: one file, replaced in one rename.

A checkpoint holds the weights, Adam's moments, the place in the epoch and the learning curve so
far. Everything else a run needs is a function of its spec, so a resumed run ends with the same
bits as one that was never killed (same machine, same torch build).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.published import replacement


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: running, from 0.
        batch: of the epoch, the next one.
        steps: done in all epochs.
        curve: points of the learning curve, each the mean loss of some steps.
        epochs: metrics after each epoch, of the validation days, or of the test days where a run
            has none.
        best_epoch: with validation days, the one whose weights are kept, from 0; -1 before any.
        test: metrics of the kept weights on the test days; None before the end.
        loss_sum: of the impressions since the last point.
        loss_count: impressions since the last point.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    best_epoch: int = -1
    test: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `json.dumps(asdict(progress))`."""
        return cls(**json.loads(text))

    def add_point(self) -> None:
        """A point of the curve, of the impressions since the last one."""
        mean = self.loss_sum / self.loss_count
        self.curve.append({"step": self.steps, "epoch": self.epoch, "loss": mean})
        self.loss_sum, self.loss_count = 0.0, 0


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def save_checkpoint(
    path: Path, identity: str, progress: Progress, tensors: dict[str, Tensor]
) -> None:
    """Replace `path`; a kill at any moment leaves the old file or the new one."""
    # safetensors refuses views that share memory, and saves from the CPU.
    plain = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    metadata = {"identity": identity, "progress": json.dumps(asdict(progress))}
    with replacement(path) as draft:
        save_file(plain, draft, metadata=metadata)


def load_checkpoint(path: Path, identity: str) -> tuple[Progress, dict[str, Tensor]] | None:
    """The checkpoint of the run `identity`, or None if there is none.

    Raises:
        BadInputError: the file is damaged, or of another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, torch.Tensor] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - not a dict
            }
        if metadata.get("identity") != identity:
            msg = f"{path}: checkpoint of another run; remove it to start anew"
            raise BadInputError(msg)
        return Progress.from_json(metadata["progress"]), tensors
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        msg = f"{path}: not a checkpoint ({error}); remove it to start anew"
        raise BadInputError(msg) from error
