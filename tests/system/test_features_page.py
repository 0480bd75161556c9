"""`docs/features.md`: its blocks run one after the other, word for word, and hold what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from uic.models.features.definition import Kind, Scale
from uic.models.features.feature_file import load_features

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return text


def run(folder: Path, line: str) -> str:
    program, *words = shlex.split(line)
    how = {"python": [], "uic": ["-m", "uic"]}[program]
    environment = {name: value for name, value in os.environ.items() if name != "UIC_WORKSPACE"}
    done = subprocess.run(
        [sys.executable, *how, *words], cwd=folder, env=environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def test_ten_minutes_run_as_they_stand(tmp_path):
    (tmp_path / "shown.py").write_text(block("python"))
    said = {line: run(tmp_path, line) for line in block("sh").splitlines()}
    names = [one.key for one in load_features(tmp_path / "var" / "features.yaml")]
    assert names == ["user.plan", "item.price", "context.position"]
    check = said["uic features check"]
    assert "user.plan: drifts: PSI 0.55 on 2026-03-02" in check
    assert re.search(r"user\.plan +categorical +100\.0% +99\.0%", check)
    assert (tmp_path / "var" / "reports" / "features.html").is_file()
    auc = {
        version: json.loads((tmp_path / f"var/bundles/dnn/{version}/metrics.json").read_text())
        for version in ("without", "with")
    }
    assert auc["without"]["test"]["auc"] == pytest.approx(0.5, abs=0.05)
    assert auc["with"]["test"]["auc"] == pytest.approx(0.79, abs=0.02)
    [last] = [line for line in said if line.startswith("uic evaluate")]
    assert json.loads(said[last])["auc"] == pytest.approx(auc["with"]["test"]["auc"], abs=1e-6)


def test_the_file_is_one_and_every_type_and_scale_is_explained(tmp_path):
    (tmp_path / "features.yaml").write_text(block("yaml"))
    assert len(load_features(tmp_path / "features.yaml")) == 4
    for word in (*Kind, *Scale):
        assert f"\n| `{word.value}` |" in PAGE
