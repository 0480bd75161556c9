"""Samples memory and open files of processes while a benchmark runs, and draws them."""

import threading
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil
from matplotlib import pyplot as plt

SAMPLE_SECONDS = 2.0
# Before: caches fill, Java grows its heap, the second generation is built and loaded.
SETTLED = 0.7
# A process that was killed starts again; younger ones than this still fill their caches.
GROWN_SECONDS = 45.0


class Sampler(threading.Thread):
    """Resident memory, MiB, and open files of each process below this one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.began = time.monotonic()
        self.samples: dict[str, list[tuple[float, float, int]]] = {}
        self.ended = threading.Event()
        self.roots: list[psutil.Process] = [psutil.Process()]

    def run(self) -> None:
        """Sample until `ended`."""
        while not self.ended.wait(SAMPLE_SECONDS):
            for process in self._processes():
                try:
                    name = f"{_kind(process.cmdline())} {process.pid}"
                    memory = process.memory_info().rss / 2**20
                    files = process.num_fds()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                at = time.monotonic() - self.began
                self.samples.setdefault(name, []).append((at, memory, files))

    def _processes(self):
        for root in list(self.roots):
            try:
                yield root
                yield from root.children(recursive=True)
            except psutil.NoSuchProcess:
                continue

    def growth(self) -> dict[str, dict[str, float]]:
        """By kind, memory and open files of the last tenth over those when all had settled.

        Only processes that were old enough count, so that those started after a kill compare with
        those before it.
        """
        end = max(values[-1][0] for values in self.samples.values())
        growth = {}
        for kind in sorted({name.split()[0] for name in self.samples} - {"harness"}):
            before, after = (
                self._grown(kind, SETTLED * end, 0.9 * end),
                self._grown(kind, 0.9 * end),
            )
            if len(before) > 10 and len(after) > 3:
                ratio = np.median(after, axis=0) / np.median(before, axis=0)
                growth[kind] = {"memory": round(ratio[0], 3), "files": round(ratio[1], 3)}
        return growth

    def _grown(self, kind: str, first: float, last: float = np.inf) -> list[tuple[float, float]]:
        return [
            (memory, files)
            for name, values in self.samples.items()
            if name.split()[0] == kind
            for at, memory, files in values
            if first <= at < last and at - values[0][0] > GROWN_SECONDS
        ]

    def plot(self, path: Path) -> None:
        """Two panels: one colour a kind of process, one line a process."""
        mpl.use("Agg")
        figure, panels = plt.subplots(2, figsize=(10, 8), sharex=True)
        kinds = sorted({name.split()[0] for name in self.samples})
        for name, values in sorted(self.samples.items()):
            kind = name.split()[0]
            minutes = [at / 60 for at, _, _ in values]
            for panel, axes in enumerate(panels):
                heights = [sample[1 + panel] for sample in values]
                known = kind in axes.get_legend_handles_labels()[1]
                axes.plot(
                    minutes, heights, f"C{kinds.index(kind)}", label="" if known else kind, lw=0.8
                )
        panels[0].set(ylabel="resident memory, MiB")
        panels[1].set(xlabel="minutes", ylabel="open files")
        panels[0].legend(fontsize="x-small", loc="upper left")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _kind(command: list[str]) -> str:
    text = " ".join(command)
    for mark, kind in (
        ("kafka.Kafka", "kafka"),
        ("redis-server", "redis"),
        ("PythonGatewayServer", "flink"),
        ("beam_boot", "boot"),
        ("beam_sdk_worker", "worker"),
        ("pyflink", "worker"),
        ("uic.jobs.stream.run.attempt", "client"),
        ("stream run", "supervisor"),
    ):
        if mark in text:
            return kind
    return "harness"
