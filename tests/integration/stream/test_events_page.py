"""`docs/events.md`: its producers send what the parser takes, to the partition of the user."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.test_readme import blocks
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.java import CHECKOUT_JARS
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.pipelines.log.events import EventParser
from uic.pipelines.log.text_ids import number_of
from uic.pipelines.settings import LogSettings

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text(encoding="utf-8")


def test_the_examples_of_events_are_taken() -> None:
    behaviour, shown, _ = blocks(PAGE, "json")
    texts = [behaviour.encode(), shown.encode()]
    parsed = EventParser(LogSettings(), lists=True).parse(texts, [1_772_323_200_000] * 2)
    assert parsed.reasons == [None, None]
    assert parsed.item_ids.tolist() == [1003, 1003, 1007]


TEXTS = ["customer 17", "ä / <b>", "x" * 128, "y" * 300]


def test_a_producer_in_python_computes_the_numbers_of_text_ids() -> None:
    _, code = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(code, names)
    assert [names["number_of"](text) for text in TEXTS] == [number_of(text) for text in TEXTS]


@pytest.mark.slow
def test_a_producer_in_java_computes_the_numbers_of_text_ids(tmp_path: Path) -> None:
    _, code = blocks(PAGE, "java")
    (tmp_path / "NumberOf.java").write_text(code)
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("no javac: the class is not compiled here")
    done = subprocess.run(
        [java, "NumberOf.java", *TEXTS],
        cwd=tmp_path, env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    assert [int(line) for line in done.stdout.split()] == [number_of(text) for text in TEXTS]


@pytest.mark.kafka
def test_both_producers_send_an_event_to_the_users_partition(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    kafka.create_topic("behaviours", 5)
    (python, _), (java, _) = blocks(PAGE, "python"), blocks(PAGE, "java")
    ours = {"127.0.0.1:9092": kafka.brokers}
    (tmp_path / "send.py").write_text(replaced(python, ours))
    ended([sys.executable, "send.py"], tmp_path)
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("no javac: the producer in Java is not compiled here")
    (tmp_path / "SendEvent.java").write_text(replaced(java, ours))
    jars = f"{CHECKOUT_JARS.resolve() / 'kafka'}/*"
    ended([compiler, "-cp", jars, "SendEvent.java"], tmp_path)
    ended(["java", "-cp", f"{tmp_path}:{jars}", "SendEvent"], tmp_path)
    rows = list(read_topic(Brokers(kafka.brokers), "behaviours"))
    now = [int(time.time() * 1000)] * len(rows)
    parsed = EventParser(LogSettings()).parse([row.payload for row in rows], now)
    assert parsed.reasons == [None, None]
    assert [json.loads(row.payload)["source"] for row in rows] == ["python", "java"]
    assert len({row.partition for row in rows}) == 1
    assert parsed.user_ids.tolist() == [17, 17]


def replaced(text: str, addresses: dict[str, str]) -> str:
    for stands, ours in addresses.items():
        assert stands in text
        text = text.replace(stands, ours)
    return text


def ended(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
