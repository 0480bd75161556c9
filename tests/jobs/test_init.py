"""`uic init`: own data, four answers, documents, and three commands that run as printed."""

import inspect
import os
import random
import re
import select
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from uic.jobs.cli import main
from uic.jobs.commands.init import init
from uic.jobs.workspace.starting import read_columns, said_columns
from uic.models.errors import BadInputError
from uic.models.features.feature_file import load_features
from uic.models.state.definition import DEFAULT
from uic.pipelines.log.event_log import EventLog


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to begin in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UIC_WORKSPACE", raising=False)
    return tmp_path


# Users and hours of five days, and of a sixth.
ROWS = 5 * 40 * 3 + 25 * 3


def events(folder: Path, name: str = "events.csv") -> Path:
    """What a shop has: text ids, a time without a zone, its own words for behaviours, a price."""
    draw = random.Random(1)
    lines = ["Visitor ID,itemid,timestamp,what,price\n"]
    for day in range(1, 7):
        for user in range(40 if day < 6 else 25):
            for hour in (8, 12, 16):
                word = draw.choice(["view", "addtocart", "transaction"])
                item, price = draw.randint(1, 30), draw.randint(1, 9)
                time = f"2025-03-0{day} {hour:02}:{user:02}:00"
                lines.append(f"ü/{user},i <{item}>,{time},{word},{price}.5\n")
    path = folder / name
    path.write_text("".join(lines), encoding="utf-8")
    return path


def uic(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def refused(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is said where a command is refused."""
    assert uic(line, monkeypatch) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ")
    return said[-1].removeprefix("error: ")


def printed(out: str) -> list[str]:
    written, following, *commands = out.strip().splitlines()
    assert written.startswith("written: ")
    assert following == "next:"
    return commands


def test_the_defaults_make_documents_and_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = events(folder).read_bytes()
    assert uic("uic init --yes", monkeypatch) == 0
    said = capsys.readouterr()
    assert printed(said.out) == [
        (
            "uic import table events.csv --user-id 'Visitor ID' --item-id itemid --event-time "
            "timestamp --behavior what --item-feature price --time-unit iso --time-zone UTC "
            "--string-id user --string-id item --behavior-name view=click --behavior-name "
            "addtocart=cart --behavior-name transaction=buy"
        ),
        "uic samples --protocol next-item --first 2025-03-01 --last 2025-03-06",
        "uic train average_pooling --samples default --epochs 1",
    ]
    assert "the ids of Visitor ID are texts ('ü/0')" in said.err
    assert yaml.safe_load(Path("var/uic.yaml").read_text()) == {"time_zone": "UTC"}
    assert Path("var/state.yaml").read_text() == DEFAULT.read_text()
    assert [one.key for one in load_features(Path("var/features.yaml")).features] == ["item.price"]
    assert (folder / "events.csv").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["events.csv", "var"]


@pytest.mark.slow
def test_the_printed_commands_run_word_for_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events(folder)
    assert uic("uic init --yes", monkeypatch) == 0
    commands = printed(capsys.readouterr().out)
    features = Path("var/features.yaml").read_text()
    for line in commands:
        assert uic(line, monkeypatch) == 0, line
    said = capsys.readouterr()
    assert Path("var/bundles/average_pooling/0001/metrics.json").is_file()
    assert "it stays as it is; add to it" not in said.err
    assert Path("var/features.yaml").read_text() == features
    assert "state.items.count" in said.out
    log = EventLog(Path("var/log"))
    assert sum(file.rows for file in log.behavior_files()) == ROWS
    assert log.impression_files() == []


def test_every_answer_is_an_option(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a b.csv").write_text("1|2|1740821400|1|5\n1|3|1740907800|0|6\n")
    Path("parts.yaml").write_text("version: 1\nparts: {last: {kind: recent, size: 4}}\n")
    line = (
        "uic init --data 'a b.csv' --names 'who,what,at,it,place' --columns 'user_id=who "
        "item_id=what event_time=at clicked=it context=place' --servers 'redis=h:6379 "
        "kafka=b:9092' --state parts.yaml --time-zone Europe/London -w shop"
    )
    assert uic(line, monkeypatch) == 0
    assert printed(capsys.readouterr().out) == [
        (
            "uic import table 'a b.csv' -w shop --user-id who --item-id what --event-time at "
            "--clicked it --context place --time-unit s --names who,what,at,it,place "
            "--separator '|'"
        ),
        "uic samples -w shop --first 2025-03-01 --last 2025-03-02",
        "uic train average_pooling -w shop --samples default --epochs 1",
    ]
    settings = yaml.safe_load(Path("shop/uic.yaml").read_text())
    assert settings == {
        "time_zone": "Europe/London",
        "store": {"address": "h:6379"},
        "stream": {"brokers": "b:9092"},
    }
    assert Path("shop/state.yaml").read_text() == Path("parts.yaml").read_text()


def test_no_state_and_no_features_make_no_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("t.csv").write_text("user,item,time\n1,2,1740821400\n1,3,1740907800\n")
    assert uic("uic init --yes --state none", monkeypatch) == 0
    assert [path.name for path in (folder / "var").iterdir()] == ["uic.yaml"]


@pytest.mark.parametrize(
    "name", ["var/uic.yaml", "var/state.yaml", "var/features.yaml", "uic.yaml"]
)
def test_a_file_that_is_there_stays(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events(folder)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("mine")
    said = refused("uic init --yes", monkeypatch, capsys)
    assert said.startswith(f"{name}: is there already and stays as it is")
    assert Path(name).read_text() == "mine"
    assert {str(path) for path in folder.rglob("*.yaml")} == {str(folder / name)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "--data: is not said, and there is no terminal to ask on; say --data …, or --yes "),
        ("--data events.csv", "--columns: is not said, and there is no terminal"),
        ("--data none.csv --yes", "none.csv: no such file"),
        ("--yes --columns 'user_id=who'", "--columns: column who is missing"),
        ("--yes --columns user_id=itemid", "--columns: no column is item_id; say item_id=COL, "),
        ("--yes --columns 'shop=itemid'", "--columns: found 'shop=itemid', expected ROLE=COL"),
        ("--yes --columns \"user_id='x\"", "--columns: found \"user_id='x\", in which a quote"),
        ("--yes --servers redis", "--servers: found 'redis', expected embedded"),
        ("--yes --servers redis=nowhere", "--servers, --time-zone: store.address: "),
        ("--yes --state mine.yaml", "--state: found 'mine.yaml', expected default, none or"),
        ("--yes --time-zone Nowhere", "--time-zone: found 'Nowhere'"),
        ("--yes --columns 'user_id=what item_id=itemid event_time=price'",
         "events.csv: column price: '"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    options: str,
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    events(folder)
    assert refused(f"uic init {options}", monkeypatch, capsys).startswith(said)
    assert not (folder / "var").exists()


def test_without_one_data_file_there_is_no_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused("uic init --yes", monkeypatch, capsys)
    assert said == "--data: is not said, and there is no default; say --data …"


def test_data_of_one_day_and_unknown_behaviours_are_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("user,item,time,event\n1,2,1740821400,click\n1,3,1740821400,login\n")
    assert uic("uic init --yes", monkeypatch) == 0
    said = capsys.readouterr()
    assert "column event has 'login', which are no behaviours" in said.err
    assert "the data are of one day (2025-03-01)" in said.err
    assert printed(said.out)[2].endswith("--epochs 1 --test-days 0")


def test_long_data_are_history_before_a_week_of_samples(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("user,item,time\n1,2,1738405800\n1,3,1740907800\n")
    assert uic("uic init --yes", monkeypatch) == 0
    sampled = "uic samples --protocol next-item --first 2025-02-24 --last 2025-03-02"
    assert printed(capsys.readouterr().out)[1] == sampled


def test_columns_are_read_as_they_are_said() -> None:
    names = ["a b", "item", "at", "price"]
    given = {"user_id": ["a b"], "item_id": ["item"], "event_time": ["at"]}
    assert read_columns(said_columns(given), names) == given
    text = f"{said_columns(given)} behavior= item_feature=cost=price behavior==buy"
    more = {"item_feature": ["cost=price"], "behavior": ["=buy"]}
    assert read_columns(text, names) == given | more
    with pytest.raises(BadInputError, match="user_id is there twice"):
        read_columns(f"{said_columns(given)} user_id=item", names)


def test_the_examples_of_the_help_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = inspect.getdoc(init) or ""
    examples = re.findall(r"Example: (uic init .*?)(?:\n\n|$)", text, re.S)
    assert len(examples) == 2
    for line in examples:
        Path("events.csv").write_text(
            "visitorid,itemid,timestamp,event\n1,2,1740821400000,view\n1,3,1740907800000,view\n"
        )
        assert uic(line, monkeypatch) == 0


class Conversation:
    """`uic init` at a terminal of its own; results go to a pipe."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uic", "init", *words],
            stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True,
            env={name: value for name, value in os.environ.items() if name != "UIC_WORKSPACE"},
        )  # fmt: skip
        os.close(theirs)
        self.said = ""

    def until(self, text: str) -> None:
        """Read what is said until `text` has come; what was before it is past."""
        while text not in self.said:
            ready, _, _ = select.select([self._ours], [], [], 30)
            assert ready, self.said
            self.said += os.read(self._ours, 4096).decode()
        self.said = self.said.partition(text)[2]

    def answer(self, question: str, default: str, text: str = "") -> None:
        self.until(f"{question} [{default}]:")
        os.write(self._ours, f"{text}\n".encode())

    def end(self) -> tuple[int, str]:
        """Exit status and results."""
        out, _ = self.process.communicate(timeout=60)
        os.close(self._ours)
        return self.process.returncode, out


SERVERS = "Redis and Kafka (embedded, or redis=HOST:PORT kafka=HOST:PORT)"
GUESS = "'user_id=Visitor ID' item_id=itemid event_time=timestamp behavior=what item_feature=price"


@pytest.mark.slow
def test_four_questions_show_the_guess_as_their_default(folder: Path) -> None:
    events(folder)
    asked = Conversation("-w", "shop")
    asked.answer("Data (file, folder, pattern)", "events.csv")
    asked.until("columns: Visitor ID, itemid, timestamp, what, price")
    asked.answer("Which is what", GUESS)
    asked.answer(SERVERS, "embedded", "redis=h:6379")
    asked.answer("Parts of a record (default, none, or a state.yaml)", "default")
    status, out = asked.end()
    assert (status, len(printed(out))) == (0, 3)
    settings = yaml.safe_load(Path("shop/uic.yaml").read_text())
    assert settings["store"] == {"address": "h:6379"}


@pytest.mark.slow
def test_a_bad_answer_is_said_and_asked_for_again(folder: Path) -> None:
    events(folder)
    asked = Conversation("--servers", "embedded", "--state", "none")
    asked.answer("Data (file, folder, pattern)", "events.csv", "event.csv")
    asked.until("event.csv: no such file")
    asked.answer("Data (file, folder, pattern)", "events.csv", "events.csv")
    asked.answer("Which is what", GUESS, "user_id=visitor")
    asked.until("column visitor is missing; did you mean Visitor ID?")
    asked.answer("Which is what", GUESS, "'user_id=Visitor ID' item_id=itemid event_time=timestamp")
    status, out = asked.end()
    assert status == 0
    assert "--behavior" not in out
    assert [path.name for path in Path("var").iterdir()] == ["uic.yaml"]


@pytest.mark.slow
def test_leaving_in_the_middle_leaves_nothing(folder: Path) -> None:
    events(folder)
    asked = Conversation()
    asked.answer("Data (file, folder, pattern)", "events.csv")
    asked.answer("Which is what", GUESS, "\x04")
    status, out = asked.end()
    assert (status, out.strip()) == (1, "")
    assert not Path("var").exists()
