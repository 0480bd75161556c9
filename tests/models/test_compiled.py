"""Compiled code is found again only by code that would compile to the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uic.models.kernels import compiled

_GRU_STEP = """
import sys
import numpy as np
from uic.models.kernels.compiled import KERNELS_SHA256
from uic.models.kernels.recurrent import run

one, states = np.zeros(1, np.int64), np.zeros((1, 16), np.float32)
run(one, one, one + 1, np.ones((1, 48), np.float32), one, np.ones(1, np.float32),
    np.zeros((16, 48), np.float32), np.zeros(48, np.float32), states)
print(KERNELS_SHA256, round(float(states[0, 0]), 4), sum(run.stats.cache_hits.values()))
assert "torch" not in sys.modules
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A tree that holds nothing but a copy of the kernels."""
    kernels = tmp_path / "uic" / "models" / "kernels"
    shutil.copytree(Path(compiled.__file__).parent, kernels)
    for package in (kernels.parent.parent, kernels.parent):
        (package / "__init__.py").touch()
    return tmp_path


def _gru_step(tree: Path, cache: str) -> tuple[str, float, int]:
    """The sum of the kernels, the state after one step of ones, and compiled code found again."""
    environment = os.environ | {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", _GRU_STEP]
    output = subprocess.run(
        command, env=environment, cwd=tree, check=True, capture_output=True, text=True
    )
    name, state, hits = output.stdout.split()
    return name, float(state), int(hits)


def test_an_edit_of_lanes_reaches_kernels_that_are_compiled_already(copied):
    cache = str(copied / "cache")
    before, state, hits = _gru_step(copied, cache)
    assert (state, hits) == (0.5568, 0)  # sigmoid(1) * tanh(1)
    assert _gru_step(copied, cache) == (before, 0.5568, 1)
    lanes = copied / "uic" / "models" / "kernels" / "lanes.py"
    exact = "    return x * p / q"
    assert exact in lanes.read_text()
    lanes.write_text(lanes.read_text().replace(exact, "    return x"))
    after, state, hits = _gru_step(copied, cache)
    assert (state, hits) == (0.75, 0)  # (1 / 2 + 1 / 2 * 1 / 2) * 1
    assert after != before


def test_a_folder_that_is_not_writable_is_no_reason_to_stop(copied):
    unusable = copied / "a_file"
    unusable.touch()
    _, state, _ = _gru_step(copied, str(unusable))
    assert state == 0.5568


def test_folders_of_older_kernels_are_removed_when_long_unused(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(tmp_path))
    old = [tmp_path / f"{number:016x}-{number:08x}" for number in range(8)]
    for number, folder in enumerate(old):
        folder.mkdir()
        os.utime(folder, (number, 1_700_000_000 + number))
    other = tmp_path / "somebody's"
    other.mkdir()
    current = compiled._cache_folder()
    assert current is not None
    assert sorted(tmp_path.iterdir()) == sorted([current, other, *old[-3:]])
