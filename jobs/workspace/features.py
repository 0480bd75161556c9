"""Features beside ids: what `features.yaml` says, and what the data says of it."""

from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.workspace.feast_sources import pull_sources
from uic.jobs.workspace.user_rows import UserRowsPanel

if TYPE_CHECKING:
    from uic.models.features.definition import FeatureSet
    from uic.pipelines.quality.feature_check import FeatureReport


class FeaturesPanel(UserRowsPanel):
    """Methods on the features of a site; those of users in the store come with `UserRowsPanel`."""

    def read(self, file: str | Path | None = None) -> "FeatureSet":
        """The features that a file names.

        Args:
            file: `features.yaml`; None takes the workspace's.

        Raises:
            FeatureFileError: it is not there, or is none.
        """
        from uic.models.features.feature_file import load_features

        return load_features(self.context.features if file is None else Path(file))

    def pull(self, file: str | Path | None = None) -> dict[str, int]:
        """Read the sources that are feature views of Feast into tables beside `features.yaml`.

        `check`, `load` and `Workspace.data.samples` do it first.

        Args:
            file: `features.yaml`; None takes the workspace's.

        Returns:
            Rows by feature view; empty if no source is one.

        Raises:
            BadInputError: the file is none, or Feast cannot read a view.
        """
        return pull_sources(self.context, self.read(file))

    def check(self, file: str | Path | None = None) -> "tuple[list[FeatureReport], Path]":
        """Hold every feature against the impressions of the log, and write a page of it.

        Args:
            file: `features.yaml`; None takes the workspace's.

        Returns:
            A report a feature, those that cannot be used with `faults`; and the page.

        Raises:
            BadInputError: the file is none, or the log has no impressions.
        """
        from uic.jobs.report.features import write_page
        from uic.pipelines.log.event_log import EventLog
        from uic.pipelines.quality.feature_check import check_features

        features = self.read(file)
        pull_sources(self.context, features)
        reports = check_features(features, EventLog(self.context.log))
        return reports, write_page(self.context.reports, reports)
