"""The front door: one object for everything that a workspace can do."""

from pathlib import Path

from uic.jobs.config.config import Config
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context
from uic.jobs.workspace.daily import DailyPanel
from uic.jobs.workspace.events import EventsPanel
from uic.jobs.workspace.features import FeaturesPanel
from uic.jobs.workspace.images import ImagesPanel
from uic.jobs.workspace.replay import ReplayPanel
from uic.jobs.workspace.serving import ServingPanel
from uic.jobs.workspace.state import StatePanel
from uic.jobs.workspace.store import StorePanel
from uic.jobs.workspace.stream import StreamPanel


class Workspace(DailyPanel, ServingPanel):
    """A folder with an event log and everything that is made of it.

    The methods do what the commands of the same names do. They return typed results, print
    nothing, and raise subclasses of `UicError`. Heavy libraries are imported by the first method
    that needs them. Methods that take time accept `progress`, called with (step, done, total).

    Args:
        path: the folder; it need not exist yet.
        config: settings, or the file to read them from; None: `uic.yaml` in the folder, then in
            the current folder, then the defaults. Environment variables `UIC_SECTION__FIELD` win.

    Raises:
        BadInputError: the path is a file, or the settings are missing or wrong.

    Example:
        >>> workspace = Workspace("var")
        >>> workspace.simulate(users=500, days=20)
        >>> workspace.samples(first="2025-01-15", last="2025-01-20")
        >>> bundle = workspace.train("mimn", epochs=1)
        >>> workspace.evaluate(bundle.label).metrics.auc
    """

    def __init__(
        self, path: str | Path = DEFAULT_WORKSPACE, config: Config | str | Path | None = None
    ) -> None:
        if isinstance(config, Config):
            folder = open_context(Path(path), None).workspace
            super().__init__(Context(folder, config, None))
        else:
            super().__init__(open_context(Path(path), None if config is None else Path(config)))

    @property
    def features(self) -> FeaturesPanel:
        """Features beside ids: hold them against the data; users' rows in the store."""
        return FeaturesPanel(self.context)

    @property
    def images(self) -> ImagesPanel:
        """Images of items: extract features, embed them, load and switch item versions."""
        return ImagesPanel(self.context)

    @property
    def state(self) -> StatePanel:
        """The exact parts of records: look at them, publish them, features as of any moment."""
        return StatePanel(self.context)

    @property
    def store(self) -> StorePanel:
        """The store: start and stop the embedded Redis, look at it, fill histories."""
        return StorePanel(self.context)

    @property
    def stream(self) -> StreamPanel:
        """The stream job: run, plan, stop, look at it."""
        return StreamPanel(self.context)

    @property
    def events(self) -> EventsPanel:
        """Events on their way: a broker, producers, dead letters, jars."""
        return EventsPanel(self.context)

    @property
    def replay(self) -> ReplayPanel:
        """A past day, lived through again."""
        return ReplayPanel(self.context)

    def __repr__(self) -> str:
        """`Workspace('var')`."""
        return f"Workspace({str(self.path)!r})"
