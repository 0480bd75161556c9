"""What `uic init` makes: the documents of a new workspace, and the first three commands.

`plan_start` reads a table and decides; `write_start` writes. Neither changes the table.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uic.feature_repo.store.settings_file import CONFIG_NAME, validated
from uic.jobs.config.config import Config
from uic.jobs.config.context import DEFAULT_WORKSPACE
from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.models.features.tables import FEATURES_FILE, file_text

if TYPE_CHECKING:
    from uic.pipelines.importers.survey import TableLook, TableSurvey
    from uic.pipelines.importers.table_features import ColumnNames

STATE_FILE: Final = "state.yaml"
EMBEDDED: Final = "embedded"
NO_STATE: Final = "none"
DEFAULT_STATE: Final = "default"
REQUIRED: Final = ("user_id", "item_id", "event_time")
_ONE: Final = (*REQUIRED, "category_id", "behavior", "clicked")
_MANY: Final = {
    "user_feature": Owner.USER,
    "item_feature": Owner.ITEM,
    "context": Owner.CONTEXT,
    "event_feature": Owner.EVENT,
}
# Impressions of so many days are enough for a first model; what is before them is history.
_SAMPLES_DAYS: Final = 7

Columns = dict[str, list[str]]


@dataclass(frozen=True)
class StartAnswers:
    """What a person said.

    Attributes:
        data: a file, a folder or a pattern.
        look: the table there.
        columns: columns by what they are.
        config: the settings, by section.
        state: the text of `state.yaml`; None for no such file.
        time_unit: of the times; None finds it.
        zone: whose days the log has.
    """

    data: str
    look: "TableLook"
    columns: Columns
    config: Mapping[str, Any]
    state: str | None
    time_unit: str | None = None
    zone: str = "UTC"


@dataclass(frozen=True)
class StartPlan:
    """What is written, what is run next, and what a person should know.

    Attributes:
        documents: texts by name of file in the workspace.
        commands: command lines, in order.
        remarks: a sentence each.
    """

    documents: Mapping[str, str]
    commands: Sequence[str]
    remarks: Sequence[str] = field(default_factory=tuple)


def read_columns(text: str, names: Sequence[str]) -> Columns:
    """Columns by what they are, of `ROLE=COL …`; `ROLE=` alone says that there is none.

    Args:
        text: such words, quoted where a name has a blank.
        names: the columns that there are.

    Raises:
        BadInputError: a word is none, a column is not there, or the user, the item or the time is
            not named.
    """
    from uic.pipelines.importers.columns_found import refuse_missing

    columns: Columns = {}
    for word in _split(text, "--columns"):
        role, equals, column = word.partition("=")
        if not equals or role not in (*_ONE, *_MANY):
            roles = ", ".join((*_ONE, *_MANY))
            msg = f"--columns: found {word!r}, expected ROLE=COL with a role of {roles}"
            raise BadInputError(msg)
        if role in _ONE and columns.get(role):
            msg = f"--columns: {role} is there twice"
            raise BadInputError(msg)
        columns.setdefault(role, []).extend([column] if column else [])
        # A feature may have another name than its column: NAME=COL.
        own = column.rpartition("=")[2] if role in _MANY else column
        if own and not (role == "behavior" and own.startswith("=")):
            refuse_missing(Path("--columns"), names, [own])
    columns = {role: of for role, of in columns.items() if of}
    missing = [role for role in REQUIRED if role not in columns]
    if missing:
        msg = (
            f"--columns: no column is {missing[0]}; say {missing[0]}=COL, with one of "
            f"{', '.join(names[:20])}"
        )
        raise BadInputError(msg)
    if "clicked" in columns and "behavior" in columns:
        msg = "--columns: clicked and behavior are both there; a clicked impression is a click"
        raise BadInputError(msg)
    return columns


def said_columns(columns: Mapping[str, Sequence[str]]) -> str:
    """Columns as `read_columns` reads them."""
    return shlex.join(f"{role}={column}" for role, of in columns.items() for column in of)


def read_servers(text: str, zone: str) -> dict[str, Any]:
    """The settings, of `embedded` or `redis=HOST:PORT kafka=HOST:PORT`.

    Raises:
        BadInputError: a word is none, an address is no address, or the zone is unknown.
    """
    document: dict[str, Any] = {"time_zone": zone}
    places = {"redis": ("store", "address"), "kafka": ("stream", "brokers")}
    for word in [] if text == EMBEDDED else _split(text, "--servers"):
        name, _, address = word.partition("=")
        if name not in places or not address:
            msg = (
                f"--servers: found {word!r}, expected {EMBEDDED}, or redis=HOST:PORT and "
                "kafka=HOST:PORT"
            )
            raise BadInputError(msg)
        section, setting = places[name]
        if address != EMBEDDED:
            document[section] = {setting: address}
    validated(Config, document, "--servers, --time-zone")
    return document


def read_state(text: str) -> str | None:
    """The text of `state.yaml`: the package's, that of a file, or None for `none`.

    Raises:
        BadInputError: there is no such file, or it names no parts.
    """
    from uic.models.state.definition import DEFAULT, StateDefinition

    if text == NO_STATE:
        return None
    file = DEFAULT if text == DEFAULT_STATE else Path(text)
    if not file.is_file():
        msg = f"--state: found {text!r}, expected {DEFAULT_STATE}, {NO_STATE} or a state.yaml"
        raise BadInputError(msg)
    StateDefinition.load(file)
    return file.read_text(encoding="utf-8")


def refuse_existing(workspace: Path, names: Sequence[str] = (CONFIG_NAME, STATE_FILE)) -> None:
    """Refuse a workspace that has one of the files.

    Raises:
        BadInputError: names it.
    """
    for path in [*(workspace / name for name in names), Path(CONFIG_NAME)]:
        if path.exists() or path.is_symlink():
            msg = (
                f"{path}: is there already and stays as it is; change it, remove it, or give "
                "another --workspace in another folder"
            )
            raise BadInputError(msg)


def plan_start(answers: StartAnswers, workspace: Path) -> StartPlan:
    """Read the table, and decide what is written and run.

    Raises:
        BadInputError: a column is not there, or does not hold what it should.
    """
    from uic.pipelines.importers.survey import survey, survey_features
    from uic.pipelines.importers.table_features import column_names

    one = {role: of[0] for role, of in answers.columns.items() if role in _ONE}
    kinds = {"user": "user_id", "item": "item_id", "category": "category_id"}
    ids = {kind: one[role] for kind, role in kinds.items() if role in one}
    behavior = one.get("behavior", "")
    found = survey(
        answers.look,
        ids,
        one["event_time"],
        behavior=None if behavior.startswith("=") else behavior or None,
        unit=answers.time_unit,
        zone=answers.zone,
    )
    features: ColumnNames = {
        owner: column_names(owner, answers.columns[role])
        for role, owner in _MANY.items()
        if role in answers.columns
    }
    documents = {CONFIG_NAME: _config_text(answers.config)}
    if features:
        tables = {Owner.USER, Owner.ITEM} & set(features)
        dated = dict.fromkeys(sorted(tables), True)
        documents[FEATURES_FILE] = file_text(survey_features(answers.look, features), dated)
    if answers.state is not None:
        documents[STATE_FILE] = answers.state
    known, remarks = _behaviors(found, one.get("behavior"))
    remarks += [
        f"the ids of {ids[kind]} are texts ({text[:40]!r}): each gets a number in the log, and "
        "keeps it"
        for kind, text in found.text_ids.items()
    ]
    if found.first == found.last:
        remarks.append(
            f"the data are of one day ({found.first}): the model is trained on it, and not tested"
        )
    commands = _commands(answers, found, known, workspace)
    return StartPlan(documents, commands, remarks)


def write_start(plan: StartPlan, workspace: Path) -> list[Path]:
    """Write the documents; none of them may be there.

    Raises:
        BadInputError: one is, or the folder cannot be written.
    """
    refuse_existing(workspace, list(plan.documents))
    paths = []
    for name, text in plan.documents.items():
        path = workspace / name
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            msg = f"{path}: cannot be written ({error.strerror or error})"
            raise BadInputError(msg) from error
        paths.append(path)
    return paths


def _split(text: str, flag: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        msg = f"{flag}: found {text!r}, in which a quote is open"
        raise BadInputError(msg) from error


def _config_text(config: Mapping[str, Any]) -> str:
    import yaml

    redis = config.get("store", {}).get("address")
    kafka = config.get("stream", {}).get("brokers")
    where = f"# Redis: {redis or 'the embedded one of `uic store start`'}.\n"
    where += f"# Kafka: {kafka or 'the one for development, `uic events broker`'}.\n"
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return f"# `uic config show` prints every setting with its unit and default.\n{where}{text}"


def _behaviors(found: "TableSurvey", column: str | None) -> tuple[dict[str, str], list[str]]:
    """What the file's words for behaviours are here, and a remark of those that cannot be told."""
    from uic.pipelines.importers.guesses import guess_behavior
    from uic.pipelines.log.schemas import BEHAVIORS

    words = [word for word in found.behaviors if word not in BEHAVIORS]
    names = {word: name for word in words if (name := guess_behavior(word)) is not None}
    unknown = [word for word in words if word not in names]
    remarks = []
    if unknown:
        shown = ", ".join(repr(word[:40]) for word in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        remarks.append(
            f"column {column} has {shown}{more}, which are no behaviours: rows with them are left "
            f"out, unless --behavior-name FOUND=NAME names one of {', '.join(BEHAVIORS)}"
        )
    return names, remarks


def _commands(
    answers: StartAnswers, found: "TableSurvey", behaviors: Mapping[str, str], workspace: Path
) -> list[str]:
    place = [] if workspace == DEFAULT_WORKSPACE else ["-w", str(workspace)]
    first = max(found.first, found.last - timedelta(days=_SAMPLES_DAYS - 1))
    made = [] if "clicked" in answers.columns else ["--protocol", "next-item"]
    test = ["--test-days", "0"] if found.first == found.last else []
    lines = [
        ["uic", "import", "table", answers.data, *place, *_import_options(answers, found)],
        ["uic", "samples", *place, *made, "--first", str(first), "--last", str(found.last)],
        ["uic", "train", "average_pooling", *place, "--samples", "default", "--epochs", "1", *test],
    ]
    for word, name in behaviors.items():
        lines[0] += ["--behavior-name", f"{word}={name}"]
    return [shlex.join(line) for line in lines]


def _import_options(answers: StartAnswers, found: "TableSurvey") -> list[str]:
    options = [
        word
        for role, of in answers.columns.items()
        for column in of
        for word in (f"--{role.replace('_', '-')}", column)
    ]
    form = answers.look.form
    if found.time_unit not in (None, "ms"):
        options += ["--time-unit", str(found.time_unit)]
    if found.no_zone:
        options += ["--time-zone", answers.zone]
    if form.names:
        options += ["--names", ",".join(form.names)]
    elif not form.header:
        options += ["--no-header"]
    if form.delimiter != ",":
        options += ["--separator", "tab" if form.delimiter == "\t" else form.delimiter]
    if not found.typed:
        options += [word for kind in found.text_ids for word in ("--string-id", kind)]
    return options
