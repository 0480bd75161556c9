"""What `uic serve` says at its start: that there is no bundle, or that it is ready."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.jobs.serving.shop import USER_COUNT, Shop

SERVE = (sys.executable, "-m", "uic", "serve", "--port", "0")


@pytest.mark.parametrize("words", [(), ("--workers", "2")], ids=["one", "two"])
def test_without_its_bundle_it_ends_with_2_and_one_line(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*SERVE, *words, "-w", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "no bundle 'mimn'; there is: none; make one with `uic train`" in line


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_it_says_ready_when_it_ranks(workers: int, tmp_path: Path) -> None:
    shop = Shop.open(tmp_path / "shop")
    shop.generation(1, shop.bundle("0001"), np.full(USER_COUNT, 3))
    process = subprocess.Popen(
        [*SERVE, "--workers", str(workers), "-w", str(shop.workspace)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "UIC_SERVE__DRAIN_SECONDS": "0.3"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/readyz", timeout=1)
        assert process.stdout.readline() == "ready: it ranks\n"
        assert httpx.get(f"{url}/readyz", timeout=30).json()["ready"] is True
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
        shop.stop()
