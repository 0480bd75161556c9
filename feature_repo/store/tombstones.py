"""Users who were deleted on request, as the workspace has them: `forgotten.json`.

The store has a set of its own, which its scripts ask before they write. Redis may lose it, or be
put back to a copy from before; the file may not. So a tombstone is on disk before the store is
told, and whatever loads or streams into a store first tells it of the users that it does not know.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.generations import Generations
from uic.models.errors import ManifestError
from uic.models.published import only_writer, write_json_atomically

NAME: Final = "forgotten.json"


class Tombstones:
    """The forgotten users of a workspace.

    Args:
        workspace: whose.
    """

    def __init__(self, workspace: Path) -> None:
        self._path = workspace / NAME

    def ids(self) -> NDArray[np.int64]:
        """Every forgotten user, (users,), ascending.

        Raises:
            ManifestError: the file is damaged.
        """
        try:
            users = json.loads(self._path.read_text(encoding="utf-8"))["users"]
            return np.unique(np.array(users, dtype=np.int64))
        except FileNotFoundError:
            return np.zeros(0, dtype=np.int64)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            msg = (
                f"{self._path}: not a list of forgotten users ({error}); restore it from a backup: "
                "without it, users who were deleted on request would come back"
            )
            raise ManifestError(msg) from error

    def add(self, user_id: int) -> None:
        """Remember a user, on disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(self._path.with_name(f".{NAME}.lock")):
            users = np.union1d(self.ids(), [user_id]).tolist()
            write_json_atomically(self._path, {"schema_version": 1, "users": users})

    def tell(self, generations: Generations) -> int:
        """Forget in the store whom it does not know as forgotten; how many.

        Raises:
            StoreError: it does not answer, or does not take the write.
        """
        ids = self.ids()
        if not len(ids):
            return 0
        unknown = np.setdiff1d(ids, generations.forgotten())
        for user in unknown.tolist():
            generations.forget(user)
        return len(unknown)
