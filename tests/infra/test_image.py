"""The image: what the files name is in it, what it runs, and what it does not bring along."""

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

import pyflink
import pytest

from tests.infra.manifests import INFRA, MANIFESTS, documents


def test_what_the_files_name_is_in_the_image():
    """Paths as the Dockerfile makes them: /opt/uic is this tree, /opt/flink is PyFlink's folder."""
    flink = Path(pyflink.__file__).parent
    lines = (INFRA / "Dockerfile").read_text()
    assert 'ln -s "$(python -c' in lines
    assert "COPY . ." in lines
    texts = [path.read_text() for path in (*MANIFESTS, INFRA / "compose.yaml")]
    named = set(re.findall(r"/opt/(?:uic|flink)/[\w./-]+", "\n".join(texts)))
    assert len(named) >= 2
    for name in named:
        root = flink if name.startswith("/opt/flink/") else INFRA.parent
        assert (root / "/".join(name.split("/")[3:])).exists(), name
    for source in re.findall(r"^COPY (?:--from=\S+ )?(\S+) ", lines, re.M):
        assert source.startswith("/build/") or (INFRA.parent / source).exists(), source
    [operator] = [d for d in documents() if d["kind"] == "FlinkDeployment"]
    version = importlib.metadata.version("apache-flink")
    assert operator["spec"]["flinkVersion"] == "v" + "_".join(version.split(".")[:2])
    assert operator["spec"]["job"]["entryClass"] == "org.apache.flink.client.python.PythonDriver"


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["serve", "--workers", "2"], "uic serve --workers 2"),
        (["uic", "--help"], "uic --help"),
        (["bash", "-c", "kubernetes-taskmanager.sh -D a=b"], "kubernetes-taskmanager.sh -D a=b"),
        (["jobmanager", "-D", "a=b"], "jobmanager.sh start-foreground -D a=b"),
        (["taskmanager"], "taskmanager.sh start-foreground"),
    ],
)
def test_the_image_runs_what_it_is_given(tmp_path, arguments, runs):
    """The entry point, with programs that print how they were called."""
    folder = tmp_path / "flink" / "bin"
    folder.mkdir(parents=True)
    (tmp_path / "flink" / "conf").mkdir()
    for name in ("uic", "jobmanager.sh", "taskmanager.sh", "kubernetes-taskmanager.sh"):
        (folder / name).write_text('#!/bin/sh\necho "$(basename "$0")" "$@"\n')
        (folder / name).chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FLINK_HOME": str(tmp_path / "flink"),
        "FLINK_LOG_DIR": str(tmp_path / "log"),
        "FLINK_CONF_DIR": str(tmp_path / "conf"),
    }
    done = subprocess.run(
        ["sh", INFRA / "docker-entrypoint.sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == runs


def test_production_has_the_versions_of_the_tests_and_none_of_their_packages():
    def pinned(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.M))

    everything, runs = (
        pinned(INFRA.parent / "requirements.lock"),
        pinned(INFRA / "requirements.lock"),
    )
    assert runs.items() <= everything.items()
    # mypy comes with SQLAlchemy, which Feast asks for with its mypy plugin.
    assert {"pytest", "schemathesis", "hypothesis", "ruff", "import-linter"} & set(runs) == set()
    assert {"apache-flink", "feast", "torch"} <= set(runs)
    assert "--require-hashes -r infra/requirements.lock" in (INFRA / "Dockerfile").read_text()
