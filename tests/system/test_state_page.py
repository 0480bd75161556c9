"""`docs/state.md`: its blocks run one after the other, word for word, and hold what it says."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.system.test_features_page import run
from tests.system.test_readme import blocks
from uic.models.state.definition import KINDS, StateDefinition

PAGE = (Path(__file__).parents[2] / "docs" / "state.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [text] = blocks(PAGE, language)
    return text


@pytest.fixture
def folder(tmp_path):
    """A folder to run in; no store is left running in it."""
    for name, text in zip(("bought.py", "read.py"), blocks(PAGE, "python"), strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / "state.yaml").write_text(block("yaml"))
    yield tmp_path
    run(tmp_path, "uic store stop")


def test_ten_minutes_run_as_they_stand(folder):
    said = {" ".join(line.split()[:3]): run(folder, line) for line in block("sh").splitlines()}
    check = said["uic state check"]
    assert "remark: items: keys went out for 11% of users; a table of more than 64" in check
    assert "bundle state/0001" in said["uic state publish"]
    assert "300 users loaded" in said["uic memories load"]
    [answer] = [line for line in said["python read.py"].splitlines() if line.startswith("0 ")]
    assert "None" not in answer
    assert "items_count" in said["python read.py"]
    assert "16 features" in said["uic features asof"]
    seen = pq.read_table(folder / "seen.parquet")
    names = [one.name for one in StateDefinition.load(folder / "state.yaml").described]
    assert seen.column_names == ["user_id", "time", "item_id", *names]
    for name in names:
        assert name in said["uic state show"]


def test_every_kind_setting_and_feature_is_on_the_page():
    for kind, part in KINDS.items():
        [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` | `")]
        for setting in part.settings_type.model_fields:
            assert f"`{setting}`" in row, f"{kind}: {setting}"
