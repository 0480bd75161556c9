"""What bash is offered at Tab, asked as bash asks: by the environment of the completion script."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UIC_WORKSPACE", raising=False)
    for name in (
        "bundles/mimn/0001",
        "bundles/mimn/0002",
        "bundles/din/0001",
        "samples/default",
        "samples/small",
        "memories/generation=001/dt=2025-03-02",
        "memories/generation=001/dt=2025-03-03",
        "memories/generation=012/dt=2025-03-03",
    ):
        folder = tmp_path / "shop" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (tmp_path / "shop" / "samples" / "half").mkdir()  # was never published
    return tmp_path / "shop"


def offered(line: str, **environment: str) -> list[str]:
    """What stands behind the last word of a line; empty for none."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    asking = {"_UIC_COMPLETE": "complete_bash", **words, **environment}
    return CliRunner().invoke(app, prog_name="uic", env=asking).stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("uic memories build -w shop --bundle ", "din din/0001 mimn mimn/0001 mimn/0002"),
        ("uic serve -w shop --bundle mimn/", "mimn/0001 mimn/0002"),
        ("uic evaluate -w shop d", "din din/0001"),
        ("uic compare -w shop mimn d", "din din/0001"),
        ("uic bundle verify -w shop mimn/0002", "mimn/0002"),
        ("uic train mimn -w shop --samples ", "default small"),
        ("uic train mimn -w shop --warm-start din/", "din/0001"),
        ("uic memories switch -w shop ", "1 12"),
        ("uic stream run -w shop --generation 12", "12"),
        ("uic memories switch ", ""),
    ],
)
def test_names_of_the_workspace_are_offered(workspace: Path, line: str, expected: str) -> None:
    assert offered(line) == expected.split()


def test_the_workspace_of_the_environment_is_looked_into(workspace: Path) -> None:
    assert offered("uic memories drop ", UIC_WORKSPACE=str(workspace)) == ["1", "12"]
