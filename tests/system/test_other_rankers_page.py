"""`docs/other-rankers.md`: its blocks run word for word, one after the other, and hold true."""

import ast
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.system.test_readme import blocks
from tests.waiting import wait_until
from uic.models.records.record import header_view
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs" / "other-rankers.md").read_text(encoding="utf-8")
PREPARE, SDK, SERVE, *ASK, DECODE = blocks(PAGE, "sh")
PORT = "6566"


def shell(folder: Path, text: str) -> str:
    """What a block prints; `uic`, `feast` and `python` are those of the tests."""
    done = subprocess.run(
        ["bash", "-e", "-c", text], cwd=folder, env=environment(), capture_output=True, text=True,
        check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name != "UIC_WORKSPACE"}
    return own | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace that serves, made as the page says; no store is left running in it."""
    root = tmp_path_factory.mktemp("other-rankers")
    names = re.findall(r"[Ss]ave it as `(\w+\.py)`", PAGE)
    for name, text in zip(names, blocks(PAGE, "python"), strict=True):
        (root / name).write_text(text)
    try:
        shell(root, PREPARE)
        yield root
    finally:
        shell(root, "uic store stop")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[str]:
    """Where `feast serve` answers, started as the page says but on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    command = ["bash", "-e", "-c", SERVE.replace(PORT, free)]
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: answers(free), server, folder / "serve.log")
        yield free
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the shell, and the server that it waits for
        server.wait(30)


def answers(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def asked(folder: Path, port: str, command: str) -> tuple[dict[str, list], dict[str, list]]:
    """Values and statuses of an answer, by name."""
    document = json.loads(shell(folder, command.replace(PORT, port)))
    names = document["metadata"]["feature_names"]
    values = {n: row["values"] for n, row in zip(names, document["results"], strict=True)}
    statuses = {n: row["statuses"] for n, row in zip(names, document["results"], strict=True)}
    return values, statuses


def events_of(folder: Path, user: int) -> tuple[np.ndarray, np.ndarray]:
    """Log times and items of a user's behaviours."""
    log = EventLog(folder / "var" / "log")
    times, items = [], []
    for file in log.behavior_files():
        table = pq.read_table(file.path, filters=[("user_id", "==", user)])
        times.append(table["log_time"].to_numpy())
        items.append(table["item_id"].to_numpy())
    return np.concatenate(times), np.concatenate(items)


def test_the_sdk_reads_what_the_log_says(folder: Path) -> None:
    said = shell(folder, "python online.py")
    columns = dict(re.findall(r"^(\w+) (\[.*\])$", said, re.M))
    read = {name: ast.literal_eval(text) for name, text in columns.items()}
    _, items = events_of(folder, 7)
    distinct, met = len(set(items)), [int((items == item).sum()) for item in (3, 4)]
    assert {"items_distinct", "shown_rate"} <= set(read["user_state"])
    assert {"items_count", "items_age"} <= set(read["candidate_state"])
    assert read["items_distinct"] == [distinct, distinct, None, None]
    assert read["items_count"] == [*met, None, None]
    assert read["events"] == [len(items), len(items), None, None]
    [size] = {size for size in read["memory"] if size is not None}
    assert read["memory"] == [size, size, None, None]
    assert size > 44


def test_rows_of_the_past_know_nothing_later(folder: Path) -> None:
    assert SDK.splitlines() == ["python online.py", "python past.py"]
    rows = re.findall(r"(2025-\S+) \S+ +([\d.]+) +([\d.]+)$", shell(folder, "python past.py"), re.M)
    times, items = events_of(folder, 7)
    expected = []
    for day in ("2025-01-05", "2025-01-19"):
        before = items[times < np.datetime64(day)]
        expected.append((day, float(len(set(before))), float((before == 3).sum())))
    assert [(day, float(a), float(b)) for day, a, b in rows] == expected
    assert expected[0] != expected[1]


def test_the_server_answers_as_the_sdk_does(folder: Path, port: str) -> None:
    parts, interest = ASK
    values, statuses = asked(folder, port, parts)
    _, items = events_of(folder, 7)
    distinct = len(set(items))
    assert values["items_distinct"] == [distinct, distinct, None]
    assert values["items_count"] == [*(int((items == item).sum()) for item in (3, 4)), None]
    assert statuses["items_count"] == ["PRESENT"] * 3
    values, statuses = asked(folder, port, interest)
    assert [values["events"], values["slots"][1]] == [[len(items), None], None]
    assert set(statuses["slots"]) == {"PRESENT"}
    table = PAGE.split("| name | what it is |")[1].split("\n\n")[0]
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+)", table, re.M)))
    assert sorted([*named, "user_id"]) == sorted(values)


def test_an_unknown_user_a_null_and_a_word(folder: Path, port: str) -> None:
    _, interest = ASK
    packed = interest.replace(
        '"feature_service": "interest_v1"', '"features": ["user_interest:memory"]'
    )
    values, statuses = asked(folder, port, packed.replace("[7, 999999]", "[7, 999999, null]"))
    assert statuses["memory"] == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert values["memory"][1:] == [None, None]
    record = np.frombuffer(base64.b64decode(values["memory"][0]), np.uint8)[None, :]
    assert int(header_view(record)["events"][0]) == len(events_of(folder, 7)[0])
    word = shell(folder, packed.replace("[7, 999999]", '["abc"]').replace(PORT, port))
    assert "abc" in word
    assert "results" not in word


def test_the_memory_has_its_shape(folder: Path) -> None:
    said = shell(folder, DECODE)
    _, items = events_of(folder, 7)
    [manifest] = (folder / "var" / "memories").glob("generation=001/*/manifest.json")
    bundle = json.loads(manifest.read_text())["bundle_hash8"]
    assert said.splitlines()[-1] == f"(8, 32) {[len(items)]} ['{bundle}']"
