"""Where jars are looked for, and how they are fetched."""

import os
import shutil
from pathlib import Path

import pytest

from uic.jobs.stream.topics.java import CHECKOUT_JARS, fetch_jars, jars, jars_root
from uic.models.errors import BadInputError


def test_a_setting_wins_over_the_workspace_and_that_over_a_checkout(tmp_path):
    assert jars_root(None, tmp_path) == CHECKOUT_JARS
    (tmp_path / "jars").mkdir()
    assert jars_root(None, tmp_path) == tmp_path / "jars"
    assert jars_root(tmp_path / "elsewhere", tmp_path) == tmp_path / "elsewhere"


def test_a_checkout_is_the_current_folder_and_never_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infra" / "jars" / "kafka").mkdir(parents=True)
    jar = tmp_path / "infra" / "jars" / "kafka" / "broker.jar"
    jar.touch()
    assert jars("kafka") == [jar]


def test_missing_jars_say_how_to_get_them_without_a_checkout(tmp_path):
    with pytest.raises(BadInputError, match=r"flink: no jars; .*`uic events jars`.*jars_folder"):
        jars("flink", tmp_path)


def maven(tmp_path, monkeypatch, script):
    """A program of that name on the path, which is this script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mvn").write_text(f"#!{shutil.which('sh')}\n{script}\n")
    (folder / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_jars_are_fetched_by_the_poms_of_the_package(tmp_path, monkeypatch):
    maven(tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/asked')
    folders = fetch_jars(tmp_path / "jars")
    assert folders == {kind: tmp_path / "jars" / kind for kind in ("kafka", "flink")}
    lines = (tmp_path / "asked").read_text().splitlines()
    words = [line.split() for line in lines]
    poms = [Path(line[line.index("-f") + 1]) for line in words]
    assert [pom.parent.name for pom in poms] == ["kafka", "flink"]
    assert all("<project" in pom.read_text() for pom in poms)
    assert [line[-1] for line in words] == [
        f"-DoutputDirectory={folder}" for folder in folders.values()
    ]


def test_what_maven_says_when_it_fails_is_in_the_error(tmp_path, monkeypatch):
    maven(tmp_path, monkeypatch, "echo 'unknown host' >&2; exit 1")
    with pytest.raises(BadInputError, match="kafka: Maven ended with status 1: unknown host"):
        fetch_jars(tmp_path / "jars")


def test_without_maven_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputError, match="no Maven"):
        fetch_jars(tmp_path / "jars")
