"""What `uic import` says to the files that strangers bring, word by word.

The golden text is for a person to judge: is what was found named, and where, and what to do?
"""

from pathlib import Path

import pytest

from tests.strangers.files import SAID, what_import_says


def test_what_import_says_to_odd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UIC_TIME_ZONE", "UIC_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    assert what_import_says(tmp_path) == SAID.read_text(encoding="utf-8"), (
        "`python -m tests.strangers.files` writes the text anew; read what changed"
    )
