"""What a generation leaves out: sale days, and what an incident put into the log.

An exclusion is a predicate on a record's own fields (user, log time, producer), so that batch and
stream leave out the same events whatever their batches. It is stored as JSON in the manifest of a
snapshot and in the generation's state; `Exclusion.from_json` makes it again. A rules file is YAML:

    - name: double clicks of the new app
      from: 2025-03-01T10:00:00Z    # log time, included
      until: 2025-03-01T14:30:00Z   # not included
      sources: [app-7]
    - name: robots
      users: [1203, 88]             # texts in quotes, where the log was imported with text ids

An event is left out if it fits all conditions of any rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from uic.models.errors import BadInputError
from uic.models.settings import Section
from uic.models.yaml_text import load_yaml
from uic.pipelines.log.events import MAX_ID
from uic.pipelines.log.text_ids import TextIds, TextIdsError
from uic.pipelines.sale_calendar import SaleCalendar

Sources = NDArray[np.object_]
_QUOTE: Final = "put an id into quotes as it stands in your data, YAML reads 0077 as 63"


class ExcludeRulesError(BadInputError):
    """A file of exclude rules cannot be read, or does not fit the snapshot that it is used with."""


class ExcludeRule(Section):
    """Conditions that an event must all fit to be left out; at least one."""

    name: str = Field("", description="for people")
    start: AwareDatetime | None = Field(
        None, alias="from", description="first log time that is left out; with time zone"
    )
    until: AwareDatetime | None = Field(
        None, description="first log time that is kept again; with time zone"
    )
    sources: tuple[str, ...] = Field((), description="producers (the events' `source`)")
    users: tuple[int, ...] = Field((), description="user ids")

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if not (self.start or self.until or self.sources or self.users):
            msg = "a rule without from, until, sources or users would leave out everything"
            raise ValueError(msg)
        if self.start and self.until and self.until <= self.start:
            msg = f"until ({self.until}) is not after from ({self.start})"
            raise ValueError(msg)
        return self

    def covers(
        self, user_ids: NDArray[np.int64], log_times_ms: NDArray[np.int64], sources: Sources
    ) -> NDArray[np.bool_]:
        """Which events fit all conditions; (events,), bool."""
        covered = np.ones(len(user_ids), dtype=np.bool_)
        if self.start is not None:
            covered &= log_times_ms >= _milliseconds(self.start)
        if self.until is not None:
            covered &= log_times_ms < _milliseconds(self.until)
        if self.users:
            covered &= np.isin(user_ids, np.array(self.users, dtype=np.int64))
        if self.sources:
            named = frozenset(self.sources)
            covered &= np.fromiter((source in named for source in sources), np.bool_, len(sources))
        return covered


@dataclass(frozen=True)
class Exclusion:
    """Everything that a generation leaves out.

    Args:
        rules: of an incident.
        sale_edges_ms: (2 x sales,): start, end, start, … of sale days, log time in milliseconds
            since 1970 UTC; starts included, ends not.
    """

    rules: tuple[ExcludeRule, ...] = ()
    sale_edges_ms: tuple[int, ...] = ()

    @classmethod
    def of(cls, calendar: SaleCalendar, rules: tuple[ExcludeRule, ...] = ()) -> Self:
        """Sale days of a calendar, and rules."""
        return cls(rules, tuple(calendar.edges_ms.tolist()))

    @property
    def needs_sources(self) -> bool:
        """Whether any rule looks at the producer."""
        return any(rule.sources for rule in self.rules)

    def covers(
        self, user_ids: NDArray[np.int64], log_times_ms: NDArray[np.int64], sources: Sources
    ) -> NDArray[np.bool_]:
        """Which events are left out.

        Args:
            user_ids: (events,), int64.
            log_times_ms: (events,), int64, milliseconds since 1970 UTC.
            sources: (events,), str or None: which producer.

        Returns:
            (events,), bool.
        """
        edges = np.array(self.sale_edges_ms, dtype=np.int64)
        covered: NDArray[np.bool_] = np.searchsorted(edges, log_times_ms, side="right") % 2 == 1
        for rule in self.rules:
            covered |= rule.covers(user_ids, log_times_ms, sources)
        return covered

    def before(self, time_ms: int) -> "Exclusion":
        """The same rules, and of the sale days the part before `time_ms`; for comparing."""
        edges = [min(edge, time_ms) for edge in self.sale_edges_ms]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        edges_before = tuple(edge for pair in pairs if pair[0] < pair[1] for edge in pair)
        return Exclusion(self.rules, edges_before)

    def to_json(self) -> dict[str, Any]:
        """As it is stored; `from_json` reads it."""
        return {
            "rules": [
                rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                for rule in self.rules
            ],
            "sale_edges_ms": list(self.sale_edges_ms),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The exclusion that `to_json` stored; of an empty document: nothing is left out."""
        rules = tuple(ExcludeRule.model_validate(rule) for rule in document.get("rules", ()))
        return cls(rules, tuple(document.get("sale_edges_ms", ())))


def load_rules(path: Path, ids: TextIds | None = None) -> tuple[ExcludeRule, ...]:
    """Read a file of rules.

    Args:
        path: of the file.
        ids: of the log, whose own system's user ids the rules have; None for numbers.

    Raises:
        ExcludeRulesError: names the file, the rule and the field.
    """
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        raise ExcludeRulesError(msg) from error
    if not isinstance(document, list) or not document:
        msg = f"{path}: found {type(document).__name__}, expected a list of rules (- name: …)"
        raise ExcludeRulesError(msg)
    rules = []
    for at, entry in enumerate(document):
        try:
            said = _with_numbers(entry, ids or TextIds()) if isinstance(entry, dict) else entry
            rules.append(ExcludeRule.model_validate(said))
        except TextIdsError as error:
            msg = f"{path}: rule {at}: users: {error}"
            raise ExcludeRulesError(msg) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            msg = f"{path}: rule {at}: {field or 'rule'}: {first['msg']} (found {first['input']!r})"
            raise ExcludeRulesError(msg) from error
    return tuple(rules)


def _with_numbers(entry: dict[str, Any], ids: TextIds) -> dict[str, Any]:
    users = entry.get("users")
    if not isinstance(users, list):
        return entry
    for one in users:
        if isinstance(one, bool) or (isinstance(one, int) and not 0 <= one <= MAX_ID):
            msg = f"found {one!r}, expected ids; {_QUOTE}"
            raise TextIdsError(msg)
    if ids.are_texts("user"):
        numbers = [one for one in users if isinstance(one, int)]
        known = ids.pairs("user", numbers)
        for number in numbers:
            if number not in known:
                msg = f"no user of the log has the number {number}, and its ids are texts; {_QUOTE}"
                raise TextIdsError(msg)
    return {
        **entry,
        "users": [ids.number("user", one) if isinstance(one, str) else one for one in users],
    }


def _milliseconds(time: datetime) -> int:
    return round(time.astimezone(UTC).timestamp() * 1000)
