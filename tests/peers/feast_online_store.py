"""Feast's own online-store tests, on stock Redis and on `UicOnlineStore`, side by side.

    git clone https://github.com/feast-dev/feast FOLDER    (a commit near the pinned release)
    pip install assertpy pytest-asyncio pytest-mock
    python tests/peers/feast_online_store.py FOLDER

Feast's wheel has no tests, so they come from a folder; nothing of it is kept. Each selection runs
once with `type: redis` and once with ours, on two servers of their own. Exit status 1 if a test
passes on stock Redis and fails on ours. What needs Docker or a cloud is left out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.stream.topics.kafka_server import free_port

SELECTIONS = {
    "universal online, push, types, materialization": (
        "--integration",
        "integration/online_store/test_universal_online.py",
        "integration/online_store/test_universal_online_types.py",
        "integration/online_store/test_universal_e2e.py",
        "integration/online_store/test_push_features_to_online_store.py",
        "integration/materialization/test_universal_materialization.py",
    ),
    "Redis units, versioning, key helpers": (
        "unit/infra/online_store",
        "unit/test_feature_view_versioning.py",
        "-k",
        "redis or key_encoding or online_store_base or versioned",
    ),
    "units that read and write online": (
        "unit/online_store",
        "unit/test_feature_server.py",
        "unit/test_on_demand_python_transformation.py",
        "unit/test_precomputed_feature_vectors.py",
        "unit/test_stream_feature_view.py",
    ),
}
# What a test names instead of the store under test; a plugin puts that in its place.
PLUGIN = """
import importlib.machinery, importlib.util, json, os, sys, types


class Absent(types.ModuleType):
    # Helpers of Docker and of clouds: Feast's conftest imports them, nothing here uses them.
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def is_missing(name):
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:
        return True


NAMES = "testcontainers docker keycloak minio aerospike boto3 botocore google.cloud".split()
MISSING = tuple(filter(is_missing, NAMES))


class Absentees:
    def find_spec(self, name, path=None, target=None):
        if any(name == root or name.startswith(root + ".") for root in MISSING):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(Absentees())

from feast.repo_config import RepoConfig

STORE = json.loads(os.environ["STORE_UNDER_TEST"])
construct = RepoConfig.__init__


def with_store_under_test(self, **data):
    online = data.get("online_store")
    kind = online.get("type") if isinstance(online, dict) else getattr(online, "type", online)
    if kind == "sqlite":
        data["online_store"] = dict(STORE)
    construct(self, **data)


RepoConfig.__init__ = with_store_under_test
"""
REPOSITORIES = """
import json, os
from tests.universal.feature_repos.universal.data_sources.file import FileDataSourceCreator

AVAILABLE_OFFLINE_STORES = [("local", FileDataSourceCreator)]
STORE = (json.loads(os.environ["STORE_UNDER_TEST"]), None)
# Some of the tests are marked for the one, some for the other.
AVAILABLE_ONLINE_STORES = {"redis": STORE, "sqlite": STORE}
"""


@contextmanager
def feasts_tests(feast: Path) -> Iterator[Path]:
    """A folder with a copy of Feast's tests and the two modules that choose the store."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(feast / "sdk" / "python" / "tests", root / "tests")
        (root / "store_under_test.py").write_text(PLUGIN, encoding="utf-8")
        (root / "repositories_under_test.py").write_text(REPOSITORIES, encoding="utf-8")
        (root / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", encoding="utf-8")
        yield root


def outcomes(root: Path, selection: tuple[str, ...], store: dict[str, str]) -> dict[str, str]:
    """`passed`, `failed` or `skipped` by test."""
    report = root / "report.xml"
    report.unlink(missing_ok=True)
    environment = os.environ | {
        "STORE_UNDER_TEST": json.dumps(store),
        "FULL_REPO_CONFIGS_MODULE": "repositories_under_test",
        "FEAST_IS_LOCAL_TEST": "True",
        "UIC_WORKSPACE": str(root / "workspace"),
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    tests = root / "tests"
    words = [str(tests / word) if (tests / word).exists() else word for word in selection]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "store_under_test"]
    subprocess.run(
        [*command, f"--junit-xml={report}", "--continue-on-collection-errors", *words],
        cwd=root,
        env=environment,
        stdout=(root / "last.log").open("w"),
        stderr=subprocess.STDOUT,
        check=False,
    )
    if not report.exists():
        sys.exit(f"Feast's tests did not start:\n{(root / 'last.log').read_text()[-2000:]}")
    results = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        # Feast puts the type of the store into the name of a test.
        name = f"{case.get('classname')}::{case.get('name')}".replace(f":{store['type']}:", "::")
        wrong = bool(kinds & {"failure", "error"})
        results[name] = "failed" if wrong else "skipped" if "skipped" in kinds else "passed"
    return results


def main() -> int:
    """Run every selection on both stores and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("feast", type=Path, help="folder of Feast's repository")
    parser.add_argument("--only", help="selections whose title has this word")
    options = parser.parse_args()
    worse = []
    print(f"{'selection':<50} tests  stock  ours")
    with feasts_tests(options.feast) as root:
        # Feast's own store knows no Unix sockets.
        port = str(free_port())
        servers = [EmbeddedRedis(root / "stock", ("--port", port)), EmbeddedRedis(root / "ours")]
        try:
            _, ours = (server.start().address for server in servers)
            stores = (
                {"type": "redis", "connection_string": f"127.0.0.1:{port},db=0"},
                {"type": "uic.feature_repo.online_store.UicOnlineStore", "address": ours},
            )
            for title, selection in SELECTIONS.items():
                if options.only and options.only not in title:
                    continue
                first, second = (outcomes(root, selection, store) for store in stores)
                counts = [list(found.values()).count("passed") for found in (first, second)]
                run = len(first) - list(first.values()).count("skipped")
                print(f"{title:<50} {run:5d} {counts[0]:6d} {counts[1]:5d}", flush=True)
                worse += [
                    name
                    for name, outcome in first.items()
                    if outcome == "passed" and second.get(name) != "passed"
                ]
        finally:
            for server in servers:
                server.stop()
    for name in worse:
        print(f"passes on stock Redis, not on ours: {name}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
