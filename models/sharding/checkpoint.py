"""A sharded table on disk: one file a rank, and a manifest last; any number of ranks loads it."""

from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from uic.models.published import file_entry, publish_manifest, read_manifest, verify_checksums
from uic.models.sharding.router import ShardError
from uic.models.sharding.table import ShardedTable
from uic.models.sharding.world import ShardWorld

SHARDS_KIND: Final = "sharded-table"
SHARDS_FORMAT: Final = 1
_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}


def save_shards(root: Path, table: ShardedTable) -> None:
    """Write every rank's rows and moments; every rank must call it.

    Rank 0 publishes the manifest when all files are there, and no rank returns before.

    Args:
        root: a directory that all ranks see.
        table: not one that serves.
    """
    if table.adam is None:
        msg = f"{root}: a table opened for serving has no moments to save"
        raise ShardError(msg)
    world = table.router.world
    root.mkdir(parents=True, exist_ok=True)
    tensors = {
        "values": table.weight.data,
        "mean": table.adam.mean,
        "square": table.adam.square,
    }
    held = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_file(held, root / _name(world.rank, world.size, table.steps))
    world.barrier()
    if world.rank == 0:
        names = [_name(rank, world.size, table.steps) for rank in range(world.size)]
        publish_manifest(
            root,
            {
                "kind": SHARDS_KIND,
                "schema_version": SHARDS_FORMAT,
                "files": [file_entry(root, root / name) for name in names],
                "rows": table.router.rows,
                "width": table.width,
                "dtype": str(table.weight.dtype).removeprefix("torch."),
                "ranks": world.size,
                "steps": table.steps,
            },
        )
    world.barrier()


def load_shards(root: Path, world: ShardWorld, *, serving: bool = False) -> ShardedTable:
    """This rank's part of a saved table, whatever number of ranks saved it.

    Args:
        root: where it was saved.
        world: the ranks that load it.
        serving: look up only; moments are not read.

    Raises:
        ManifestError: not a saved table, or a file with another sum.
        ShardError: more ranks than rows, or a file that does not fit the manifest.
    """
    manifest = read_manifest(root, SHARDS_KIND, SHARDS_FORMAT)
    if world.rank == 0:
        verify_checksums(root, manifest)
    world.barrier()
    rows, width, saved = manifest["rows"], manifest["width"], manifest["ranks"]
    if manifest["dtype"] not in _DTYPES:
        msg = f"{root}: dtype is {manifest['dtype']!r}, expected one of {', '.join(_DTYPES)}"
        raise ShardError(msg)
    dtype = _DTYPES[manifest["dtype"]]
    table = ShardedTable(world, rows, width, 0.0, serving=serving, dtype=dtype)
    table.steps = manifest["steps"]
    targets = {"values": table.weight.data}
    if table.adam is not None:
        targets |= {"mean": table.adam.mean, "square": table.adam.square}
    for rank in range(saved):
        ids = torch.arange(rank, rows, saved)
        own = ids % world.size == world.rank
        path = root / _name(rank, saved, table.steps)
        try:
            with safe_open(path, framework="pt") as file:
                for name, target in targets.items():
                    part = file.get_tensor(name)
                    if part.shape != (ids.numel(), width):
                        found = list(part.shape)
                        msg = f"{path}: {name} is {found}, expected {[ids.numel(), width]}"
                        raise ShardError(msg)
                    target[ids[own] // world.size] = part[own].to(target.device)
        except (SafetensorError, OSError) as error:
            msg = f"{path}: not readable as safetensors ({error}); copy the checkpoint again"
            raise ShardError(msg) from error
    return table


def _name(rank: int, size: int, steps: int) -> str:
    # A save over an older one must not touch the files that its manifest still names.
    return f"step-{steps:09d}-rank-{rank:05d}-of-{size:05d}.safetensors"
