"""Users' features in the store: load all rows, push one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel
from uic.jobs.workspace.feast_sources import pull_sources

if TYPE_CHECKING:
    from uic.feature_repo.plugin.user_rows import LoadedUsers


class UserRowsPanel(WorkspacePanel):
    """Methods of `Workspace.features` about the store."""

    def load(self, *, progress: Progress | None = None) -> "LoadedUsers":
        """Write the users' rows that hold now into the store, where they differ.

        Args:
            progress: told users done.

        Returns:
            How many rows were written, unchanged, or left alone.

        Raises:
            BadInputError: `features.yaml` or its table of users is not what it has to be.
            StoreError: the store does not take it.
        """
        from uic.feature_repo.plugin.user_rows import load_user_rows
        from uic.models.features.feature_file import load_features

        told = progress or no_progress
        features = load_features(self.context.features)
        pull_sources(self.context, features)
        return load_user_rows(
            self.config.store,
            self.context.workspace,
            features,
            lambda done, total: told("load", done, total),
        )

    def push(self, user: int | str, values: Mapping[str, Any]) -> bool:
        """Write one user's features, as of now; those not named stay as they are.

        Args:
            user: id, as the log's own system has it.
            values: by name, as in `features.yaml`.

        Returns:
            Whether it landed: not for a forgotten user.

        Raises:
            BadInputError: a name is no feature of users, or a value is of another type.
            StoreError: the store does not take it.

        Example:
            >>> workspace.features.push(17, {"age_band": "25-34"})
        """
        from uic.feature_repo.plugin.user_rows import push_user_row
        from uic.models.features.feature_file import load_features

        features = load_features(self.context.features)
        number = self.ids.number("user", user)
        return push_user_row(self.config.store, self.context.workspace, features, number, values)
