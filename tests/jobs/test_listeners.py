"""What of our processes can be reached from other machines."""

import subprocess
import sys

import pytest

from uic.jobs.checks.listeners import listeners

_LISTEN = """
import socket, subprocess, sys
sockets = [socket.create_server((host, 0)) for host in ("127.0.0.1", "0.0.0.0")]
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process(tmp_path):
    """A process and one that it has started, each with a port on loopback and one on all."""
    script = tmp_path / "listen.py"
    script.write_text(_LISTEN)
    started = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for _ in range(2):
        assert started.stdout.readline() == "ready\n"
    yield started
    started.communicate("")


def test_sockets_of_a_process_and_its_children_are_listed(process):
    found = listeners(process.pid)
    assert sorted(listener.address for listener in found) == ["0.0.0.0"] * 2 + ["127.0.0.1"] * 2
    assert [listener.is_open for listener in found].count(True) == 2
    assert len({listener.pid for listener in found}) == 2


def test_a_process_that_has_ended_has_none(process):
    process.communicate("")
    assert listeners(process.pid) == []
