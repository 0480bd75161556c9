"""Why an attempt failed, in one line, out of what Java and its workers left behind."""

import contextlib
import re
from pathlib import Path

from uic.jobs.stream.run.attempt import FAILURE_FILE


def readable(text: str) -> str:
    """The first own error in a stack trace of Java around one of Python, in one line."""
    found = re.findall(r"(?:feature_repo|jobs|models|pipelines)\.[\w.]*?(\w+Error): ([^\n]*)", text)
    if found:
        return f"{found[-1][0]}: {found[-1][1]}"
    if text.startswith("An error occurred while calling") and "\n" not in text.strip():
        return "its Java process is gone"  # what Py4J says of a lost connection
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes or lines or ["no reason was given"])[-1][:400]


def failure_of(run_folder: Path) -> str:
    """Why an attempt's process ended."""
    for name in (FAILURE_FILE, "out.log"):
        with contextlib.suppress(OSError):
            text = (run_folder / name).read_text(encoding="utf-8", errors="replace")
            if text.strip():
                return readable(text)
    return f"its process was killed; logs are in {run_folder}"
