"""`state.yaml`: the parts of a record, as data.

    version: 1
    parts:
      items: {kind: counts, by: item, size: 128}
      categories: {kind: counts, by: category, half_lives: [7d]}
      spent: {kind: aggregate, of: price, functions: [sum, count], windows: [1d, 7d]}
      mine: {kind: "shop.parts:Basket"}

A part is found by its kind: one of this package's, or `module:Class` of your own, a subclass of
`uic.models.state.part.StatePart`. The definition's sum stands in bundles and generations.
`freshness` beside the parts is of serving (`uic.models.state.freshness`), and not in the sum.
"""

import hashlib
import importlib
import inspect
import json
import re
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from uic.models.records.positions import EventBatch
from uic.models.settings import Section
from uic.models.state.aggregate import Aggregate
from uic.models.state.counts import Counts
from uic.models.state.freshness import Freshness
from uic.models.state.part import (
    Asked,
    Cuts,
    Features,
    PartFeature,
    StateFileError,
    StatePart,
    States,
)
from uic.models.state.rates import Rates
from uic.models.state.recent import Recent
from uic.models.state.shown import read_by
from uic.models.yaml_text import load_yaml

KINDS: Final[dict[str, type[StatePart]]] = {
    "counts": Counts,
    "rates": Rates,
    "recent": Recent,
    "aggregate": Aggregate,
}
DEFAULT: Final = Path(__file__).with_name("default.yaml")
# What a record of exact parts may take beside the learned ones.
MOST_BYTES: Final = 65_536
_VERSION: Final = 1
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class StateDefinition:
    """The exact parts of a record, in order.

    Attributes:
        parts: with distinct names, ascending where they come from a file.
        freshness: what a service does while records are behind; None for nothing.
    """

    parts: tuple[StatePart, ...] = ()
    freshness: Freshness | None = None

    @cached_property
    def bytes(self) -> int:
        """Of all parts of one user."""
        return sum(part.bytes for part in self.parts)

    @cached_property
    def described(self) -> tuple[PartFeature, ...]:
        """All features, in order, with names `part.feature`."""
        return tuple(
            PartFeature(f"{part.name}.{one.name}", one.description, one.scale, one.of_candidate)
            for part in self.parts
            for one in part.described
        )

    @property
    def reads(self) -> frozenset[str]:
        """Further columns of events that the parts read."""
        return frozenset[str]().union(*(part.reads for part in self.parts))

    @property
    def reads_shown(self) -> bool:
        """Whether a part reads what was shown; else such events are left out of a record."""
        return any(part.shown_share > 0 for part in self.parts)

    def initial(self) -> NDArray[np.uint8]:
        """The states of a user without an event, side by side: (bytes,)."""
        return np.concatenate([np.zeros(0, np.uint8), *(part.fresh() for part in self.parts)])

    def split(self, states: States) -> list[States]:
        """Each part's states, (users, its bytes), copied; `joined` is the reverse."""
        ends = np.cumsum([part.bytes for part in self.parts])
        return [
            states[:, end - part.bytes : end].copy()
            for part, end in zip(self.parts, ends, strict=True)
        ]

    def fold(self, states: States, events: EventBatch) -> None:
        """Fold events into states, (users, bytes), in place; see `StatePart.fold`."""
        split = self.split(states)
        for part, own in zip(self.parts, split, strict=True):
            taken = read_by(part, events)
            part.fold(own, events if taken is None else events.select(taken))
        if split:
            states[...] = np.concatenate(split, axis=1)

    def features(self, states: States, asked: Asked) -> Features:
        """What states say: (rows, features) float32, the columns of `described`."""
        columns = [
            part.features(own, asked)
            for part, own in zip(self.parts, self.split(states), strict=True)
        ]
        return _beside(columns, len(asked))

    def as_of(
        self,
        events: EventBatch,
        asked: Asked,
        seen: NDArray[np.int64],
    ) -> Features:
        """Features of rows, each as of the events that it has seen, folded from nothing.

        Args:
            events: each owner's together, in the order of the log; owners ascending.
            asked: rows in any order.
            seen: (rows,), one past the last event that each row sees, among `events`.

        Returns:
            (rows, features) float32, in the order of `asked`.
        """
        users = int(max(events.user_index.max(initial=-1), asked.owners.max(initial=-1))) + 1
        order = np.lexsort((seen, asked.owners))
        ends, owners = seen[order], asked.owners[order]
        first = np.searchsorted(events.user_index, owners, side="left")
        begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        fresh = np.diff(owners, prepend=-1) != 0
        begins = np.where(fresh, first, begins)
        cuts = Cuts(begins, np.maximum(ends, begins))
        sorted_rows = asked.select(order)
        columns = []
        for part in self.parts:
            states = np.repeat(part.fresh()[None], users, axis=0)
            taken = read_by(part, events)
            if taken is None:
                columns.append(part.walk(states, events, sorted_rows, cuts))
                continue
            place = np.concatenate([[0], np.cumsum(taken)])
            own_cuts = Cuts(place[cuts.begins], place[cuts.ends])
            columns.append(part.walk(states, events.select(taken), sorted_rows, own_cuts))
        found = np.empty((len(asked), len(self.described)), np.float32)
        found[order] = _beside(columns, len(asked))
        return found

    def document(self) -> dict[str, Any]:
        """The file with every setting written out, for manifests and bundles."""
        return {
            "version": _VERSION,
            "parts": {
                part.name: {"kind": kind_of(part), **part.settings.model_dump(mode="json")}
                for part in self.parts
            },
        }

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal sum of the document: what says that two states are the same."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def of_document(cls, document: Any, where: str) -> Self:
        """The definition of a parsed file.

        Raises:
            StateFileError: names `where`, the part, what was found and what was expected.
        """
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            found = document.get("version") if isinstance(document, dict) else type(document)
            msg = f"{where}: version is {found!r}, expected {_VERSION}; see docs/state.md"
            raise StateFileError(msg)
        unknown = sorted(set(document) - {"version", "parts", "freshness"})
        entries = document.get("parts")
        if unknown or not isinstance(entries, dict):
            msg = f"{where}: found {unknown or entries!r}, expected version, parts and freshness"
            raise StateFileError(msg)
        # By name: a bundle's file has sorted keys, and the bytes of one sum lie in one order.
        named = sorted(((str(name), entry) for name, entry in entries.items()), key=itemgetter(0))
        parts = tuple(_part(name, entry, where) for name, entry in named)
        state = cls(parts, _freshness(document.get("freshness"), where))
        if not state.parts:
            msg = f"{where}: parts is empty; name one, as docs/state.md shows"
            raise StateFileError(msg)
        names = [one.name for one in state.described]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"{where}: {twice[0]} is said twice; name each function and window once"
            raise StateFileError(msg)
        if state.bytes > MOST_BYTES:
            largest = max(state.parts, key=lambda part: part.bytes)
            msg = (
                f"{where}: the parts take {state.bytes} bytes a user, at most {MOST_BYTES}; the "
                f"largest is {largest.name} with {largest.bytes}"
            )
            raise StateFileError(msg)
        return state

    @classmethod
    def load(cls, path: Path) -> Self:
        """The definition of a file.

        Raises:
            StateFileError: it is none, or cannot be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
            twice = _repeated_name(text)
            document = load_yaml(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            msg = f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
            raise StateFileError(msg) from error
        if twice is not None:
            msg = f"{path}: {twice} stands there twice; give each part a name of its own"
            raise StateFileError(msg)
        return cls.of_document(document, str(path))


def kind_of(part: StatePart) -> str:
    """The `kind` that finds the part's class."""
    for kind, known in KINDS.items():
        if type(part) is known:
            return kind
    return f"{type(part).__module__}:{type(part).__qualname__}"


def _part(name: str, entry: Any, where: str) -> StatePart:
    where = f"{where}: part {name}"
    if not _NAME.fullmatch(name):
        msg = f"{where}: expected a name of a-z, 0-9 and _, at most 32"
        raise StateFileError(msg)
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        msg = f"{where}: expected kind: {'|'.join(KINDS)}, or module:Class of your own"
        raise StateFileError(msg)
    kind = _class_of(entry["kind"], where)
    settings = {key: value for key, value in entry.items() if key != "kind"}
    return kind(name, _settings(kind.settings_type, settings, where))


def _freshness(entry: Any, where: str) -> Freshness | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        msg = f"{where}: freshness: found {entry!r}, expected {{at_most: 10m, then: serve}}"
        raise StateFileError(msg)
    return _settings(Freshness, entry, f"{where}: freshness")


def freshness_of(workspace: Path) -> Freshness | None:
    """What the `state.yaml` of a workspace says of serving; None without one.

    Raises:
        StateFileError: the file is none.
    """
    path = workspace / "state.yaml"
    return StateDefinition.load(path).freshness if path.is_file() else None


_Settings = TypeVar("_Settings", bound=Section)


def _settings(kind: type[_Settings], entry: Any, where: str) -> _Settings:
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        reason = (
            f"unknown; known: {', '.join(sorted(kind.model_fields))}"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        msg = f"{where}: {f'{field}: ' if field else ''}{reason}"
        raise StateFileError(msg) from error


def _class_of(kind: str, where: str) -> type[StatePart]:
    if kind in KINDS:
        return KINDS[kind]
    module, colon, name = kind.partition(":")
    if not colon:
        msg = f"{where}: kind {kind!r} is unknown; known: {', '.join(KINDS)}, or module:Class"
        raise StateFileError(msg)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module from outside raises when it is imported
        reason = " ".join(str(error).split())
        msg = f"{where}: kind {kind}: {reason}; is the module on Python's path?"
        raise StateFileError(msg) from error
    fit = isinstance(found, type) and issubclass(found, StatePart)
    if not fit or inspect.isabstract(found) or not hasattr(found, "settings_type"):
        msg = (
            f"{where}: kind {kind} is no subclass of uic.models.state.part.StatePart, or lacks some"
        )
        raise StateFileError(msg)
    whole: type[StatePart] = found
    return whole


def _repeated_name(text: str) -> str | None:
    """A key that a mapping has twice, which YAML would let the last one win."""
    stack = [yaml.compose(text, Loader=yaml.SafeLoader)]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:  # an alias, which may be of itself
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if isinstance(key, str) and keys.count(key) > 1:
                    return key
            stack += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            stack += node.value
    return None


def _beside(columns: list[Features], rows: int) -> Features:
    return np.concatenate([np.zeros((rows, 0), np.float32), *columns], axis=1)
