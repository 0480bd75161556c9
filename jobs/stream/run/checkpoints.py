"""Whose a checkpoint is: beside the checkpoints of a job stands which job they are of."""

import json
from pathlib import Path
from typing import Any, Final

from uic.models.errors import BadInputError

JOB_NAME: Final = "job.json"


class CheckpointError(BadInputError):
    """A checkpoint to resume from is none, or is of another job."""


def check_checkpoint(path: Path, job: dict[str, Any]) -> None:
    """Refuse a checkpoint or savepoint unless it is of this job.

    Raises:
        CheckpointError: there is none at `path`, or it is of another generation or epoch.
    """
    if not (path / "_metadata").is_file():
        msg = f"{path}: not a completed checkpoint or savepoint: it has no _metadata"
        raise CheckpointError(msg)
    noted = next(
        (parent / JOB_NAME for parent in path.parents if (parent / JOB_NAME).exists()), None
    )
    found = json.loads(noted.read_text(encoding="utf-8")) if noted else None
    if found != job:
        msg = f"{path}: of another job: found {found}, expected {job}; leave out --checkpoint"
        raise CheckpointError(msg)
