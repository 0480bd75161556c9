"""The `features.yaml` of the documents is read as it stands."""

import re
from pathlib import Path

from uic.models.features.feature_file import load_features

ROOT = Path(__file__).parents[3]


def test_the_example_of_the_concepts_is_a_file(tmp_path):
    text = (ROOT / "docs" / "concepts.md").read_text()
    (example,) = re.findall(r"```yaml\n(version: 1\n.*?)```", text, re.DOTALL)
    (tmp_path / "features.yaml").write_text(example)
    assert len(load_features(tmp_path / "features.yaml")) == 8
