"""The wheel alone, beside a project that `feast init` made, with folders named like ours.

The environment of the test has everything installed by the wheel; what uic depends on comes from
the environment that runs the tests, by path and without its editable install.
"""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest

from tests.system.test_readme import blocks

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
STORE = """\
project: shop
registry: data/registry.db
provider: local
online_store:
  type: uic.feature_repo.online_store.UicOnlineStore
entity_key_serialization_version: 3
"""


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """The command's standard output; it sees no path of the checkout."""
    removed = {"PYTHONPATH", "UIC_WORKSPACE", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--offline", "--no-build-isolation", "--python", sys.executable, "-o", folder)
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory) -> Path:
    """The interpreter of a fresh environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    interpreter = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run(UV, "pip", "install", "--offline", "--no-deps", "--python", interpreter, wheel)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.fixture
def shop(python: Path, tmp_path: Path) -> Path:
    """A project of `feast init`, which has folders of our names and its own `feature_repo`."""
    run(python, "-m", "feast.cli.cli", "init", "shop", cwd=tmp_path)
    folder = tmp_path / "shop"
    for name in ("models", "jobs", "pipelines"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise ImportError('the user's {name}')\n")
    return folder


def test_wheel_and_sdist_hold_one_import_name(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"uic"}
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.name.count("/") > 0]
    packages = {m.name.split("/")[1] for m in members if m.name.endswith("/__init__.py")}
    assert packages <= {"uic", "tests"}
    assert not any(member.issym() for member in members)
    for name in (
        "py.typed",
        "feature_repo/store/write.lua",
        "feature_repo/feature_store.yaml",
        "jobs/stream/topics/poms/kafka/pom.xml",
        "jobs/stream/topics/poms/flink/pom.xml",
    ):
        assert f"uic/{name}" in names


def test_the_wheel_alone_goes_from_a_log_to_a_ranking(python: Path, shop: Path) -> None:
    def uic(*words: str) -> str:
        return run(python, "-m", "uic", *words, cwd=shop)

    uic("doctor")
    uic("simulate", "--users", "200", "--items", "150", "--days", "62", "--seed", "3")
    uic("samples", "--first", "2025-02-27", "--last", "2025-03-02", "--out", "small")
    uic("train", "mimn", "--samples", "small", "--epochs", "1")
    uic("memories", "build", "--bundle", "mimn", "--until", "2025-03-03")
    uic("store", "start")
    try:
        uic("memories", "load", "generation=001/dt=2025-03-03")
        uic("memories", "switch", "1")
        (shop / "feature_repo" / "feature_store.yaml").write_text(STORE)
        run(python, "-m", "feast.cli.cli", "-c", "feature_repo", "apply", cwd=shop)
        answer = _ranked(python, shop)
    finally:
        uic("store", "stop")
    assert [row["item_id"] for row in answer["items"]] != []
    assert answer["degraded"] is False
    assert (shop / "var" / "log" / "epochs.json").is_file()


def test_ten_minutes_of_counters_run_from_the_wheel(
    python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`docs/state.md` in an empty folder, and how long it took."""
    page = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    for name, text in zip(("bought.py", "read.py"), blocks(page, "python"), strict=True):
        (tmp_path / name).write_text(text)
    [parts], [commands] = blocks(page, "yaml"), blocks(page, "sh")
    (tmp_path / "state.yaml").write_text(parts)
    programs = {"uic": (python, "-m", "uic"), "python": (python,)}
    started, said = time.monotonic(), {}
    try:
        for line in commands.splitlines():
            program, *words = shlex.split(line)
            said[line] = run(*programs[program], *words, cwd=tmp_path)
    finally:
        run(python, "-m", "uic", "store", "stop", cwd=tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"docs/state.md, from the wheel: {time.monotonic() - started:.0f} s\n")
    assert "items_count" in said["python read.py"]
    assert (tmp_path / "seen.parquet").is_file()


def _ranked(python: Path, shop: Path) -> dict:
    """One answer of `uic serve`, which is stopped afterwards."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "UIC_WORKSPACE"}}
    with subprocess.Popen(
        [python, "-m", "uic", "serve", "--port", "0"],
        cwd=shop,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            url = service.stdout.readline().split()[-1]
            body = json.dumps({"user_id": 1, "item_ids": [1, 2, 3], "k": 3}).encode()
            head = {"Content-Type": "application/json"}
            _wait_until_ready(url)
            with urlopen(Request(f"{url}/v1/rank", body, head), timeout=60) as answer:
                return json.load(answer)
        finally:
            for child in psutil.Process(service.pid).children(recursive=True):
                child.terminate()
            service.terminate()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urlopen(f"{url}/readyz", timeout=10).close()
        except (URLError, OSError):
            assert time.monotonic() < deadline, "the service is not ready"
            time.sleep(0.1)
        else:
            return
