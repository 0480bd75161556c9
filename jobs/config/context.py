"""What everything starts from: a workspace's folders and its effective configuration."""

from dataclasses import dataclass
from pathlib import Path

from uic.feature_repo.store.settings_file import find_settings_file
from uic.jobs.config.config import Config, load_config
from uic.models.errors import BadInputError

DEFAULT_WORKSPACE = Path("var")


@dataclass(frozen=True)
class Context:
    """The workspace's folders and the effective configuration."""

    workspace: Path
    config: Config
    config_path: Path | None

    @property
    def log(self) -> Path:
        """The event log: `behaviors/`, `impressions/`, `epochs.json`, `manifests/`."""
        return self.workspace / "log"

    @property
    def samples(self) -> Path:
        """One published directory of grouped samples a name."""
        return self.workspace / "samples"

    @property
    def features(self) -> Path:
        """The site's features beside ids."""
        return self.workspace / "features.yaml"

    @property
    def bundles(self) -> Path:
        """`<model>/<version>/`, each a trained model."""
        return self.workspace / "bundles"

    @property
    def images(self) -> Path:
        """One published directory of image features a name."""
        return self.workspace / "images"

    @property
    def memories(self) -> Path:
        """Snapshots: `generation=NNN/dt=YYYY-MM-DD/`."""
        return self.workspace / "memories"

    @property
    def reports(self) -> Path:
        """Pages for people: data docs, tables, plots."""
        return self.workspace / "reports"


def open_context(workspace: Path, config: Path | None) -> Context:
    """Find and read the configuration.

    Raises:
        BadInputError: the workspace is a file, or the configuration is missing or wrong.
    """
    if workspace.exists() and not workspace.is_dir():
        msg = f"{workspace}: is a file; --workspace must name a folder"
        raise BadInputError(msg)
    path = find_settings_file(workspace, config, Path())
    return Context(workspace, load_config(path), path)
