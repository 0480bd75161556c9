"""The embedded Redis: starts, survives, is found again, and stops only itself."""

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from uic.feature_repo.store.connection import Address, connect, refuse_eviction, resolve_address
from uic.feature_repo.store.errors import StoreSettingError, StoreUnavailableError
from uic.feature_repo.store.server import EmbeddedRedis, Running, recorded_address
from uic.feature_repo.store.settings import StoreSettings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "store")
    yield server
    server.stop()


def test_it_keeps_its_data_and_its_socket_over_a_kill(server: EmbeddedRedis) -> None:
    first = server.start()
    assert server.start() == first
    with connect(Address.at(first.address)) as client:
        client.set("a", "1")
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        server.kill()
        assert server.running() is None
        second = server.start()
        assert second.address == first.address
        assert client.get("a") == b"1"
    assert server.stop()
    assert not server.stop()


def test_the_socket_is_private_short_and_the_same_after_a_restart(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / ("long" * 30))
    try:
        first = server.start()
        assert first.socket is not None
        assert stat.S_IMODE(first.socket.parent.stat().st_mode) == 0o700
        with connect(Address.at(first.address)) as client:
            client.set("a", "1")
            server.stop()
            assert not first.socket.parent.exists()
            assert server.start().address == first.address
            assert client.get("a") == b"1"
            server.stop()
            first.socket.parent.mkdir(mode=0o755)  # as a stranger would, who waits for a client
            first.socket.parent.chmod(0o755)
            assert server.start().address != first.address
            first.socket.parent.rmdir()
    finally:
        server.stop()


def test_a_copy_of_a_stopped_store_has_a_socket_of_its_own(tmp_path: Path) -> None:
    """A12: the copy's server.json names a server that has ended, at the original's address."""
    original = EmbeddedRedis(tmp_path / "original")
    original.start()
    original.stop()
    shutil.copytree(original.directory, tmp_path / "copy")
    copy = EmbeddedRedis(tmp_path / "copy")
    try:
        first = original.start()
        with pytest.raises(StoreUnavailableError, match="run `uic store start`"):
            recorded_address(copy.directory)
        second = copy.start()
        assert second.address != first.address
        copy.stop()
        with connect(Address.at(first.address)) as client:
            assert client.ping()
    finally:
        original.stop()
        copy.stop()


def test_a_folder_that_was_restored_is_found_where_it_was(server: EmbeddedRedis) -> None:
    first = server.start()
    server.stop()
    shutil.copytree(server.directory, server.directory.with_name("backup"))
    shutil.rmtree(server.directory)
    shutil.copytree(server.directory.with_name("backup"), server.directory)
    assert server.start().address == first.address


def test_a_folder_in_the_place_of_one_that_runs_elsewhere_takes_no_socket(tmp_path: Path) -> None:
    moved, put = tmp_path / "moved", EmbeddedRedis(tmp_path / "store")
    first = put.start()
    put.directory.rename(moved)
    shutil.copytree(moved, put.directory)
    try:
        assert put.start().address != first.address
        with connect(Address.at(first.address)) as client:
            assert client.ping()
    finally:
        put.stop()
        EmbeddedRedis(moved).stop()


def test_a_socket_that_was_cleaned_away_is_made_again(server: EmbeddedRedis) -> None:
    first = server.start()
    with connect(Address.at(first.address)) as client:
        client.set("a", "1")
    assert first.socket is not None
    shutil.rmtree(first.socket.parent)
    with connect(Address.at(server.start().address)) as client:
        assert client.get("a") == b"1"


def test_two_starts_at_once_start_one(server: EmbeddedRedis) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: EmbeddedRedis(server.directory).start(), range(4)))
    assert set(found) == {server.running()}


def test_a_server_of_a_version_with_a_port_is_still_found_and_stopped(
    server: EmbeddedRedis,
) -> None:
    running = server.start()
    file = server.directory / "server.json"
    document = json.loads(file.read_text())
    del document["address"]
    file.write_text(json.dumps(document | {"port": 6379}))
    found = server.running()
    assert found is not None
    assert (found.pid, found.address) == (running.pid, "127.0.0.1:6379")


def test_it_outlives_the_process_that_started_it(server: EmbeddedRedis) -> None:
    code = (
        "from pathlib import Path; from uic.feature_repo.store.server import EmbeddedRedis; "
        f"EmbeddedRedis(Path({str(server.directory)!r})).start()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    running = server.running()
    assert running is not None
    with connect(Address.at(running.address)) as client:
        assert client.ping()


def test_a_process_number_that_another_program_has_now_is_left_alone(
    server: EmbeddedRedis,
) -> None:
    server.directory.mkdir()
    me = psutil.Process()
    other = Running(me.pid, me.create_time(), "unix:///nowhere")
    (server.directory / "server.json").write_text(json.dumps(other.__dict__))
    assert server.running() is None
    assert not server.stop()


def test_without_a_server_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="uic store start"):
        resolve_address(StoreSettings(), tmp_path)


def test_a_given_address_wins_over_the_embedded_one(tmp_path: Path) -> None:
    settings = StoreSettings(address="redis.example:6380", password="secret", tls=True)
    address = resolve_address(settings, tmp_path)
    assert str(address) == "redis.example:6380"
    assert address.client_arguments()["ssl"]
    assert "secret" not in repr(address)


def test_a_redis_that_would_evict_memories_is_refused(server: EmbeddedRedis) -> None:
    running = server.start()
    with connect(Address.at(running.address)) as client:
        refuse_eviction(client, Address.at(running.address))
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreSettingError, match="allkeys-lru"):
            refuse_eviction(client, Address.at(running.address))
