"""Whether a socket that the network reaches is told from one that only this machine reaches."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.run.lag import SourceLag, lag_page
from uic.jobs.stream.run.listeners import ListenerWatch, listeners
from uic.jobs.stream.run.metrics_relay import metrics_port, relay_metrics


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


def test_flinks_reporter_has_a_port_of_its_own_where_metrics_are_asked_for():
    assert metrics_port(StreamSettings()) == 0
    assert metrics_port(StreamSettings(prometheus_port=9249)) not in (0, 9249)


def test_one_page_has_flinks_metrics_and_what_lies_beside(tmp_path):
    (tmp_path / "metrics").write_text("flink_x 1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as flink:
        threading.Thread(target=flink.serve_forever).start()
        lag = tmp_path / "lag.prom"
        relay = relay_metrics("127.0.0.1", 0, flink.server_port, lag)
        url = f"http://127.0.0.1:{relay.server_port}/metrics"

        def page() -> str:
            with urllib.request.urlopen(url) as answer:
                return answer.read().decode()

        try:
            assert page() == "flink_x 1"
            lag.write_text(lag_page(3, SourceLag({0: 5, 1: 2}, {2: 4})))
            assert page().splitlines()[-2:] == [
                'uic_stream_lag_events{generation="3",partitions="read"} 7',
                'uic_stream_lag_events{generation="3",partitions="new"} 4',
            ]
        finally:
            relay.shutdown()
            relay.server_close()
            flink.shutdown()
