"""Bytes of AMS and of parameter servers (DICM, table 2)."""

import csv
from pathlib import Path
from typing import Any, Final

from uic.jobs.config.console import ERR
from uic.jobs.experiments.runs import Request, run_spec
from uic.jobs.experiments.tables import Row
from uic.jobs.training.rank_run import RankRun, Ranks, job_of, train_on_ranks
from uic.jobs.training.run import checkpoint_path, with_images
from uic.models.sharding.ams_bytes import (
    PAPER,
    PRINTED,
    PRINTED_STORAGE_RATIO,
    PRINTED_WIRE_RATIO,
    Bytes,
    Strategy,
    cost,
    storage_ratio,
    wire_ratio,
)

AMS_TABLE: Final = "dicm-table2"
# Table 2 is measured on so many processes of this machine.
_RANKS: Final = 2
_MIB: Final = 2**20


def ams_table(request: Request, folder: Path, name: str, remark: str) -> list[Path]:
    """Table 2: the paper's figures, the formulas at its sizes, and a job counted here."""
    costs = {}
    for strategy in Strategy:
        spec = run_spec(request, Row(strategy.value, "dicm"), 0)
        _, images = with_images(request.context, spec.settings)
        checkpoint = checkpoint_path(request.context.workspace, spec)
        checkpoint = checkpoint.with_name(f"{strategy.value}-{checkpoint.name}")
        checkpoint.unlink(missing_ok=True)  # a run that goes on would count the rest only
        run = RankRun(
            samples=request.reader.root,
            images=images.path if images else None,
            spec=spec,
            checkpoint=checkpoint,
            ranks=Ranks(_RANKS, strategy),
        )
        costs[strategy] = train_on_ranks(run)
        checkpoint.unlink(missing_ok=True)
        ERR.print(f"{strategy.value}: {costs[strategy]['measured']}", markup=False)
    return write_ams(folder, name, costs, remark)


def write_ams(
    folder: Path, name: str, costs: dict[Strategy, dict[str, Any]], remark: str
) -> list[Path]:
    """Markdown and CSV; Markdown first."""
    folder.mkdir(parents=True, exist_ok=True)
    head = ["strategy", "figures", "worker store", "server store", "wire, all", "wire, images"]
    cells = []
    for strategy in Strategy:
        cells += [
            [strategy.value, "published", *PRINTED[strategy]],
            [strategy.value, "formula, the paper's job", *_row(cost(strategy, PAPER))],
            [strategy.value, "formula, our job", *_row(cost(strategy, job_of(costs[strategy])))],
            [strategy.value, "counted, our job", *_counted(costs[strategy])],
        ]
    ours = job_of(costs[Strategy.AMS])
    counted = {strategy: _sums(costs[strategy]) for strategy in Strategy}
    stored = counted[Strategy.PS_WORKER][0] / counted[Strategy.AMS][0]
    sent = counted[Strategy.PS_SERVER][1] / counted[Strategy.AMS][1]
    measured = costs[Strategy.AMS]["measured"]
    lines = [
        "# Bytes for a batch (DICM, table 2)", "", remark, "",
        (f"Our job: {_RANKS} processes, {ours.feature_width} floats an image; values in MiB. "
        "Counted bytes are those that leave a process; the formulas count every request, as if "
        "servers were other machines. Requests and the sums of gradients over all processes, "
        "which the paper leaves out, are left out here too."), "",
        f"| {' | '.join(head)} |", "|---" * len(head) + "|",
        *(f"| {' | '.join(row)} |" for row in cells), "",
        "| ratio | published | formula, the paper's job | formula, our job | counted, our job |",
        "|---|---|---|---|---|",
        (f"| storage, ps-worker over ams | {PRINTED_STORAGE_RATIO} | {storage_ratio(PAPER):.1f} "
        f"| {storage_ratio(ours):.1f} | {stored:.1f} |"),
        (f"| wire, ps-server over ams | {PRINTED_WIRE_RATIO} | {wire_ratio(PAPER):.1f} "
        f"| {wire_ratio(ours):.1f} | {sent:.1f} |"), "",
        (f"AMS: {measured['images_wanted']:.0f} times an image was wanted, "
        f"{measured['images_embedded']:.0f} times one was embedded, in "
        f"{measured['batches']:.0f} batches."), "",
    ]  # fmt: skip
    paths = [folder / f"{name}.md", folder / f"{name}.csv"]
    paths[0].write_text("\n".join(lines), encoding="utf-8")
    with paths[1].open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([head, *cells])
    return paths


def _row(found: Bytes) -> list[str]:
    parts = (found.worker_store, found.server_store, found.wire, found.image_wire)
    return [f"{part / _MIB:.3f}" for part in parts]


def _counted(costs: dict[str, Any]) -> list[str]:
    return [f"{part / _MIB:.3f}" for part in _for_a_batch(costs)]


def _sums(costs: dict[str, Any]) -> tuple[float, float]:
    """Stored and sent, for a batch."""
    worker, server, wire, _ = _for_a_batch(costs)
    return worker + server, wire


def _for_a_batch(costs: dict[str, Any]) -> list[float]:
    """Worker store, server store, wire, wire of images: bytes."""
    found = costs["measured"]
    images = found["image_values"] + found["image_gradients"]
    ids = found["id_values"] + found["id_gradients"]
    parts = (found["worker_store"], found["server_store"], images + ids, images)
    return [part / found["batches"] for part in parts]
