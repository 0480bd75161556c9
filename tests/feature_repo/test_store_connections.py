"""Ways into a Redis, each for `uic` and for `feast` by the same settings; a real server."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from feast import FeatureStore
from feast.repo_config import load_repo_config
from typer.testing import CliRunner

from tests.feature_repo.feast_rows import frame, live_generation, memories
from uic.feature_repo.plugin.repository import REPOSITORY
from uic.feature_repo.store.connection import checked_client, connect, resolve_address
from uic.feature_repo.store.errors import StoreAccessError, StoreError, StoreSettingError
from uic.jobs.cli import app
from uic.jobs.config.config import load_config
from uic.jobs.drills.hostile.certificates import make_certificates

# `redis-server` of the machine: the one in the wheel is built without TLS.
pytestmark = pytest.mark.slow

USERS = """
user default on nopass ~* &* +@all
user shop on >s3cret ~* &* +@all
user managed on >s3cret ~* &* +@all -@dangerous
user narrow on >s3cret ~uic:* +@read +@write +@scripting +@transaction +@connection +time
"""


@dataclass(frozen=True)
class Secured:
    """A server with a plain port, a TLS port that wants a certificate, and a unix socket."""

    folder: Path
    port: int
    tls_port: int

    @property
    def ways(self) -> dict[str, dict[str, str]]:
        """Environment by the name of the way."""
        plain = f"127.0.0.1:{self.port}"
        shop = {"USERNAME": "shop", "PASSWORD": "s3cret"}
        files = {
            "TLS": "true",
            "TLS_CA_FILE": str(self.folder / "ca.pem"),
            "TLS_CERT_FILE": str(self.folder / "client.pem"),
            "TLS_KEY_FILE": str(self.folder / "client.key"),
        }
        return {
            "acl": {"ADDRESS": plain} | shop,
            "without_info": {"ADDRESS": plain, "USERNAME": "managed", "PASSWORD": "s3cret"},
            "narrow": {"ADDRESS": plain, "USERNAME": "narrow", "PASSWORD": "s3cret"},
            "tls": {"ADDRESS": f"127.0.0.1:{self.tls_port}"} | shop | files,
            "unix": {"ADDRESS": f"unix://{self.folder}/redis.sock"},
            "ipv6": {"ADDRESS": f"[::1]:{self.port}"},
            "db": {"ADDRESS": plain, "DB": "17"},
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    (folder / "users.acl").write_text(USERS.lstrip())
    server = Secured(folder, free_port(), free_port())
    program = shutil.which("redis-server")
    assert program, "install redis-server of your distribution (it has TLS)"
    command = [
        *(program, "--port", str(server.port), "--tls-port", str(server.tls_port)),
        *("--bind", "127.0.0.1", "::1", "--unixsocket", str(folder / "redis.sock")),
        *("--tls-cert-file", "server.pem", "--tls-key-file", "server.key"),
        *("--tls-ca-cert-file", "ca.pem", "--aclfile", "users.acl", "--databases", "20"),
        *("--dir", str(folder), "--save", "", "--logfile", "redis.log"),
    ]
    process = subprocess.Popen(command, cwd=folder)
    with redis.Redis(port=server.port) as client:
        while True:
            assert process.poll() is None, (folder / "redis.log").read_text()
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
    yield server
    process.terminate()
    process.wait(30)


@pytest.fixture
def shop(secured: Secured, workspace: Path, registry: Path) -> Path:
    """A workspace whose definitions are applied, and an empty server."""
    with redis.Redis(port=secured.port) as client:
        client.flushall()
    shutil.copy(registry, workspace / "feast.db")
    return workspace


def by_environment(monkeypatch: pytest.MonkeyPatch, way: dict[str, str]) -> None:
    for name, value in way.items():
        monkeypatch.setenv(f"UIC_STORE__{name}", value)


def stock_feast() -> FeatureStore:
    """What the `feast` command opens: the repository's yaml, as it is."""
    return FeatureStore(config=load_repo_config(REPOSITORY, REPOSITORY / "feature_store.yaml"))


@pytest.mark.parametrize("name", ["acl", "without_info", "narrow", "tls", "unix", "ipv6", "db"])
def test_uic_and_feast_get_into_the_same_redis(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    way = secured.ways[name]
    by_environment(monkeypatch, way)
    records = memories()
    with connect(resolve_address(load_config(None).store, shop)) as client:
        live_generation(client)
    feast = stock_feast()
    feast.write_to_online_store("user_interest", frame(records))
    row = [{"user_id": 1}]

    async def read() -> list[bytes]:
        answer = await feast.get_online_features_async(["user_interest:memory"], row)
        await feast._get_provider().online_store.close()
        values: list[bytes] = answer.to_dict()["memory"]
        return values

    assert feast.get_online_features(["user_interest:memory"], row).to_dict()["memory"] == [
        records[0].tobytes()
    ]
    assert asyncio.run(read()) == [records[0].tobytes()]
    seen = CliRunner().invoke(app, ["store", "status", "--workspace", str(shop)])
    assert seen.exit_code == 0, seen.output
    assert way["ADDRESS"] in seen.output
    listed = CliRunner().invoke(app, ["memories", "list", "--workspace", str(shop)])
    assert "live" in listed.output
    with redis.Redis(port=secured.port, db=int(way.get("DB", 0))) as client:
        assert len(client.keys("uic:uic:m:1:*")) == 4


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("acl", {"PASSWORD": "wrong"}, "refused the user or the password.*UIC_STORE__USERNAME"),
        ("tls", {"TLS_CA_FILE": ""}, r"CERTIFICATE_VERIFY_FAILED.*store\.tls_ca_file"),
        ("tls", {"TLS_CERT_FILE": "", "TLS_KEY_FILE": ""}, r"wants a certificate.*tls_cert_file"),
        ("tls", {"TLS_CA_FILE": "/no/such.pem"}, r"store\.tls_ca_file: /no/such.pem: no such file"),
    ],
)
def test_a_way_that_is_closed_is_named(  # noqa: PLR0917 - three of them fixtures
    secured: Secured,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: dict[str, str],
    message: str,
) -> None:
    way = {key: value for key, value in (secured.ways[name] | change).items() if value}
    by_environment(monkeypatch, way)
    feast = stock_feast()
    with pytest.raises(StoreError, match=message):
        feast.get_online_features(["user_interest:memory"], [{"user_id": 1}])
    seen = CliRunner().invoke(app, ["store", "status", "--workspace", str(shop)])
    assert isinstance(seen.exception, StoreError)


@pytest.fixture
def certificate_of(secured: Secured) -> Iterator[Callable[[str], None]]:
    """Change the server's certificate while it runs."""
    admin = redis.Redis(port=secured.port)

    def change(name: str) -> None:
        admin.config_set(
            "tls-cert-file",
            f"{name}.pem",
            "tls-key-file",
            f"{name}.key",
            "tls-ca-cert-file",
            "ca.pem",
        )

    yield change
    change("server")
    admin.close()


def refusal(workspace: Path) -> StoreError:
    with pytest.raises(StoreError) as refused, checked_client(load_config(None).store, workspace):
        pass
    assert "\n" not in str(refused.value)
    return refused.value


def test_a_certificate_of_another_host_is_refused_unless_names_are_not_looked_at(
    secured: Secured,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate_of: Callable[[str], None],
) -> None:
    certificate_of("elsewhere")
    by_environment(monkeypatch, secured.ways["tls"])
    feast = stock_feast()
    says = r"certificate is of another host: set store\.address .*tls_check_hostname"
    with pytest.raises(StoreAccessError, match=says):
        feast.get_online_features(["user_interest:memory"], [{"user_id": 1}])
    address = resolve_address(load_config(None).store, shop)

    async def ask() -> None:
        async with redis.asyncio.Redis(**address.client_arguments()) as client:
            await client.ping()

    with pytest.raises(redis.ConnectionError, match="IP address mismatch"):
        asyncio.run(ask())
    monkeypatch.setenv("UIC_STORE__TLS_CHECK_HOSTNAME", "false")
    with checked_client(load_config(None).store, shop) as (client, _):
        assert client.ping()


def test_a_certificate_that_has_expired_is_its_owners_to_renew(
    secured: Secured,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate_of: Callable[[str], None],
) -> None:
    certificate_of("expired")
    by_environment(monkeypatch, secured.ways["tls"] | {"TLS_CHECK_HOSTNAME": "false"})
    found = refusal(shop)
    assert isinstance(found, StoreAccessError)
    assert str(found).endswith("let the owner of Redis' certificate renew it")


def test_an_authority_that_did_not_sign_is_named_with_its_setting(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = secured.ways["tls"] | {"TLS_CA_FILE": str(secured.folder / "other-ca.pem")}
    by_environment(monkeypatch, way)
    found = refusal(shop)
    assert isinstance(found, StoreAccessError)
    assert "set store.tls_ca_file to the authority" in str(found)


def test_a_certificate_of_ours_that_redis_does_not_take_is_named(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = secured.ways["tls"] | {
        "TLS_CERT_FILE": str(secured.folder / "other-ca.pem"),
        "TLS_KEY_FILE": str(secured.folder / "other-ca.key"),
    }
    by_environment(monkeypatch, way)
    found = refusal(shop)
    assert isinstance(found, StoreAccessError)
    assert "set store.tls_cert_file and tls_key_file" in str(found)


def test_encryption_on_one_side_alone_is_said(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, tls = f"127.0.0.1:{secured.port}", f"127.0.0.1:{secured.tls_port}"
    by_environment(monkeypatch, secured.ways["acl"] | {"ADDRESS": tls})
    found = refusal(shop)
    assert str(found).startswith(f"{tls}: Redis takes encrypted connections only; set store.tls")
    assert not found.passing
    by_environment(monkeypatch, secured.ways["tls"] | {"ADDRESS": plain, "TIMEOUT_SECONDS": "1"})
    found = refusal(shop)
    assert str(found).startswith(f"{plain}: Redis does not encrypt there; name its port for TLS")
    assert not found.passing


def test_a_redis_that_is_away_is_no_matter_of_encryption(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = f"127.0.0.1:{free_port()}"
    for way in ("acl", "tls"):
        by_environment(monkeypatch, secured.ways[way] | {"ADDRESS": nothing})
        found = refusal(shop)
        assert "does not answer" in str(found)
        assert found.passing


def test_a_user_without_info_is_warned_that_eviction_was_not_looked_at(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_environment(monkeypatch, secured.ways["without_info"])
    feast = stock_feast()
    with pytest.raises(StoreError, match="no generation is live"):
        feast.get_online_features(["user_interest:memory"], [{"user_id": 1}])
    assert "maxmemory-policy is noeviction" in caplog.text


def test_a_command_that_the_user_may_not_run_is_no_matter_of_the_password(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis(port=secured.port) as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+ping")
    way = {"ADDRESS": f"127.0.0.1:{secured.port}", "USERNAME": "reader", "PASSWORD": "s3cret"}
    by_environment(monkeypatch, way)
    with pytest.raises(StoreAccessError, match=r"lets this user not run a command.*\+@read"):
        stock_feast().get_online_features(["user_interest:memory"], [{"user_id": 1}])


def test_a_project_of_uic_that_is_not_feasts_is_refused(
    secured: Secured, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_environment(monkeypatch, secured.ways["unix"] | {"PROJECT": "shop"})
    with pytest.raises(StoreSettingError, match=r"project is uic, uic's store.project is shop"):
        stock_feast().get_online_features(["user_interest:memory"], [{"user_id": 1}])
