"""`uic` in the test's own process, as the console script runs it."""

import sys

import pytest

from uic.jobs.cli import main


def uic(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit status of a command; it prints where the test captures."""
    monkeypatch.setattr(sys, "argv", ["uic", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
