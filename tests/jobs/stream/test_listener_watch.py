"""Whether a socket that the network reaches is told from one that only this machine reaches."""

import os
import socket
import subprocess
import sys

import pytest

from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.run.listeners import ListenerWatch, listeners
from uic.jobs.stream.run.metrics_relay import metrics_port


def test_a_socket_on_every_address_is_warned_of_once():
    said: list[str] = []
    watch = ListenerWatch(os.getpid(), {}, meant=set(), say=said.append)
    with socket.create_server(("127.0.0.1", 0)):
        watch.look(runs=False)
        assert said == []
        with socket.create_server(("0.0.0.0", 0)) as everywhere:
            port = everywhere.getsockname()[1]
            watch.look(runs=False)
            watch.look(runs=False)
    [warning] = said
    assert warning.startswith(f"WARNING: 0.0.0.0:{port} (")
    assert "takes connections from the network" in warning


def test_a_socket_that_a_setting_names_is_not_warned_of():
    said: list[str] = []
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        port = everywhere.getsockname()[1]
        watch = ListenerWatch(os.getpid(), {port: "ours"}, meant={port}, say=said.append)
        watch.look(runs=True)
        watch.look(runs=True)
    [line] = said  # this process may have other sockets
    assert line.startswith(f"listens on 0.0.0.0:{port} (ours)")


@pytest.mark.parametrize(("address", "loopback"), [("::1", True), ("::", False)])
def test_addresses_of_six(address, loopback):
    with socket.create_server((address, 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        [found] = [found for found in listeners(os.getpid()) if found.port == port]
        assert found.on_loopback is loopback
        assert str(found).startswith(f"[{address}]:{port} (")


LISTEN = """
import socket, subprocess, sys
sockets = [socket.create_server((host, 0)) for host in ("127.0.0.1", "0.0.0.0")]
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"])
print("ready", flush=True)
sys.stdin.read()
"""


def test_sockets_of_a_process_and_its_children_are_listed_until_they_end(tmp_path):
    script = tmp_path / "listen.py"
    script.write_text(LISTEN)
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        found = listeners(process.pid)
        assert sorted(one.address for one in found) == ["0.0.0.0"] * 2 + ["127.0.0.1"] * 2
        assert len({one.pid for one in found}) == 2
        process.communicate("")
    assert listeners(process.pid) == []


def test_flinks_reporter_has_the_port_itself_unless_another_address_is_wanted():
    assert metrics_port(StreamSettings(prometheus_port=9249)) == 9249
    assert metrics_port(StreamSettings()) == 0
    elsewhere = StreamSettings(prometheus_port=9249, prometheus_host="0.0.0.0")
    assert metrics_port(elsewhere) not in (0, 9249)
