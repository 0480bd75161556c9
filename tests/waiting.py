"""Waits for a server that a test has started by a documented command."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# Importing Feast takes ten seconds of an idle machine, and minutes of a busy one.
LONGEST_SECONDS = 300


def wait_until(answers: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it answers; fail with what it wrote where it ends, or takes too long."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not answers():
        said = log.read_text()
        assert server.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.3)
