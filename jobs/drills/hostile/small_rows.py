"""A20: input that once ended in a traceback, never ended, or told a secret."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from uic.jobs.config.config import load_config
from uic.jobs.drills.hostile.bundle_damage import DAMAGES
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.stage import HostileStage
from uic.jobs.drills.trial import untrained_bundle
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import UicError

_SECRET: Final = "98765432123456789"  # noqa: S105 - the drill's own
_LAUGHS: Final = (
    "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    + "serve: {max_in_flight: *a29}\n"
)
# What a settings file may say, and what is wrong with it in words.
HOSTILE_SETTINGS: Final[Mapping[str, str]] = {
    "serve: " + "[" * 5000 + "]" * 5000: "more than 40 levels, line 1",
    _LAUGHS: "more than 50 aliases",
}
_LINE_LETTERS: Final = 400


def _one_line(what: str, deed: Callable[[], object], says: str = "") -> None:
    """The deed is refused in one line.

    Raises:
        NotHeldError: it was done, or refused in another way.
    """
    try:
        deed()
    except UicError as error:
        text = str(error)
        good = says in text and len(text) < _LINE_LETTERS and _SECRET not in text
        require(good, f"{what}: said {text[:_LINE_LETTERS]!r}")
        return
    except Exception as error:  # a traceback is what this row looks for
        require(held=False, seen=f"{what}: {type(error).__name__}: {error}")
    require(held=False, seen=f"{what}: was taken")


def _small(stage: HostileStage) -> str:
    folder = stage.new_folder("small")
    for number, (name, damage) in enumerate(DAMAGES.items()):
        path = folder / "bundles" / "sum_pooling" / f"{number:04d}"
        untrained_bundle(path, 10, 5)
        damage(path)
        _one_line(f"bundle with {name}", partial(load_bundle, path))
    for text, says in HOSTILE_SETTINGS.items():
        _one_line(f"uic.yaml: {text[:20]}…", partial(_settings, folder, text), says)
    _one_line("a numeric password", partial(_settings, folder, f"store: {{password: {_SECRET}}}"))
    return (
        f"{len(DAMAGES)} damaged bundles, {len(HOSTILE_SETTINGS) + 1} files of settings and "
        f"{_commands(folder)} commands: one line each, no secret"
    )


def _settings(folder: Path, text: str) -> None:
    path = folder / "uic.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_config(path)
    finally:
        path.unlink()


def _commands(folder: Path) -> int:
    """Commands in processes of their own; how many."""
    workspace = folder / "workspace"
    huge = "9" * 23
    commands = (("user", "show", huge), ("user", "forget", "--yes", "--", "-5"))
    for words in commands:
        done = _run(*words[:2], "--workspace", str(workspace), *words[2:])
        lines = done.stderr.strip().splitlines()
        good = done.returncode == 2 and "Traceback" not in done.stderr
        require(good, f"uic {' '.join(words)}: status {done.returncode}: {lines[-1:]}")
    os.environ["UIC_STORE__PASSWORD"] = _SECRET
    try:
        shown = _run("config", "show", "--workspace", str(workspace)).stdout
    finally:
        del os.environ["UIC_STORE__PASSWORD"]
    require(_SECRET not in shown, "config show tells the password")
    _settings(folder, shown)
    return len(commands) + 1


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "uic", *words], capture_output=True, text=True, check=False
    )


def _small_control(stage: HostileStage) -> None:
    """A bundle that is whole: it is taken, so the row would see that another was."""
    path = stage.new_folder("whole") / "sum_pooling" / "0001"
    untrained_bundle(path, 10, 5)
    _one_line("a bundle that is whole", partial(load_bundle, path))


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A20",
        "bundles whose sums are right and whose content is not, YAML bombs, ids beyond 64 bits",
        "each is refused in one line that tells no secret; what config show prints is read back",
        _small,
        _small_control,
    ),
)
