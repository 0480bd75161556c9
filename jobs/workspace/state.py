"""The exact parts of records: what `state.yaml` says, and what the log says of it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.workspace.base import WorkspacePanel
from uic.models.errors import BadInputError, UicError

if TYPE_CHECKING:
    from feast import FeatureStore

    from uic.models.features.event_columns import EventColumn
    from uic.models.state.definition import StateDefinition
    from uic.pipelines.state.asof import AsOfFacts
    from uic.pipelines.state.check import StateCheck


class StatePanel(WorkspacePanel):
    """Methods on the exact parts of records."""

    @property
    def file(self) -> Path:
        """The workspace's `state.yaml`; need not be there."""
        return self.context.workspace / "state.yaml"

    def read(self, file: str | Path | None = None) -> "StateDefinition":
        """The parts that a file names.

        Args:
            file: `state.yaml`; None takes the workspace's, or the package's if it has none.

        Raises:
            StateFileError: it is none.
        """
        from uic.models.state.definition import DEFAULT, StateDefinition

        own = self.file if self.file.is_file() else DEFAULT
        return StateDefinition.load(own if file is None else Path(file))

    def init(self) -> Path:
        """Write the package's parts as the workspace's `state.yaml`, to be changed.

        Raises:
            BadInputError: there is one already.
        """
        from uic.models.state.definition import DEFAULT

        if self.file.exists():
            msg = f"{self.file}: is there already; change it, or remove it first"
            raise BadInputError(msg)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(DEFAULT.read_text(encoding="utf-8"), encoding="utf-8")
        return self.file

    def check(self, file: str | Path | None = None) -> "StateCheck":
        """Hold the parts against the log.

        Raises:
            BadInputError: the file is none, or the log has no behaviours.
        """
        from uic.pipelines.state.check import check_state

        state = self.read(file)
        columns = self.columns(state)
        return check_state(self.context.log, self.config.time_zone, state, columns)

    def publish(self, file: str | Path | None = None, version: str | None = None) -> str:
        """Publish the parts as a bundle `state/VERSION`, which a generation is built with.

        Returns:
            The bundle's name. Where the current one has the same parts, it is that one.

        Raises:
            BadInputError: the file is none.
            BundleError: a part reads a column that is not declared, or the version is there.
        """
        from uic.models.bundles.bundle import load_bundle
        from uic.models.bundles.documents import STATE_MODEL
        from uic.models.bundles.saving import save_state
        from uic.models.bundles.shelf import BundleShelf

        state = self.read(file)
        columns = self.columns(state)
        shelf = BundleShelf(self.context.bundles)
        read = {column for column in columns if column.name in state.reads}
        for known in shelf.versions(STATE_MODEL) if version is None else []:
            try:
                bundle = load_bundle(shelf.path(STATE_MODEL, known))
                known_parts = bundle.state
            except UicError:  # of a module that is gone, or damaged: another one is published
                continue
            same = known_parts is not None and known_parts.sha256 == state.sha256
            if same and set(bundle.event_columns) == read:
                shelf.choose(STATE_MODEL, known)
                return f"{STATE_MODEL}/{known}"
        chosen = version or shelf.next_version(STATE_MODEL)
        save_state(shelf.path(STATE_MODEL, chosen), state, columns)
        shelf.choose(STATE_MODEL, chosen)
        return f"{STATE_MODEL}/{chosen}"

    def as_of(
        self,
        rows: str | Path,
        out: str | Path,
        file: str | Path | None = None,
        *,
        exclude: str | Path | None = None,
        keep_sale_days: bool = False,
    ) -> "AsOfFacts":
        """Write the features of rows as of each row's time (`uic.pipelines.state.asof`).

        Args:
            rows: Parquet file with `user_id`, `time`, and `item_id` if wanted.
            out: Parquet file to write.
            file: `state.yaml`; None takes the workspace's.
            exclude: YAML list of rules for what is left out, as of `build_memories`.
            keep_sale_days: behaviours of sale days are seen, whatever the section `sale` says.

        Raises:
            BadInputError: a file is none, or the log has no behaviours.
        """
        from uic.pipelines.memories.exclude import Exclusion, load_rules
        from uic.pipelines.sale_calendar import SaleCalendar
        from uic.pipelines.state.asof import AsOfRequest, features_as_of

        state = self.read(file)
        sale = self.config.sale
        calendar = SaleCalendar.empty() if keep_sale_days else SaleCalendar.for_behaviors(sale)
        rules = () if exclude is None else load_rules(Path(exclude), self.ids)
        request = AsOfRequest(
            log=self.context.log,
            state=state,
            columns=tuple(c for c in self.columns(state) if c.name in state.reads),
            time_zone=self.config.time_zone,
            exclusion=Exclusion.of(calendar, rules),
        )
        return features_as_of(request, Path(rows), Path(out))

    def feast(self) -> "FeatureStore":
        """Feast on this workspace, with its definitions applied: what any ranker reads.

        `user_state:PART_FEATURE` is a feature of a user, `candidate_state:PART_FEATURE` one of a
        candidate, whose rows have `candidate_item_id` and `candidate_category_id`.

        Raises:
            StoreError: Redis does not answer.
        """
        from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store

        # The decoders of on-demand views find the workspace there.
        os.environ["UIC_WORKSPACE"] = str(self.path.resolve())
        store = open_feature_store(self.config.store, self.path)
        apply_definitions(store, self.path)
        return store

    def columns(self, state: "StateDefinition") -> "tuple[EventColumn, ...]":
        """Columns of events that the site declares.

        Raises:
            BundleError: a part reads another, or one of another type.
        """
        from uic.models.bundles.saving import refuse_unknown_columns
        from uic.models.features.event_columns import event_columns
        from uic.models.features.feature_file import load_features

        own = self.context.features
        columns = event_columns(load_features(own)) if own.is_file() else ()
        refuse_unknown_columns(state, columns)
        return columns
