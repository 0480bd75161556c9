"""Bundles that say one thing and hold another, their sums right: as a bug or an attacker would."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file

from uic.models.published import MANIFEST_NAME, file_entry

_WEIGHTS: Final = "model.safetensors"
_Document = dict[str, Any]


def set_weight(path: Path, value: float) -> None:
    """Give one number of a bundle's weights another value."""
    weights = load_file(path / _WEIGHTS)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[0] = value
    save_file(weights, path / _WEIGHTS)
    reseal(path)


def reseal(path: Path) -> None:
    """Make a bundle's manifest agree with its files."""

    def renew(manifest: _Document) -> None:
        for entry in manifest["files"]:
            entry.update(file_entry(path, path / entry["path"]))

    _edit_manifest(renew, path)


def _edit_manifest(change: Callable[[_Document], object], path: Path) -> None:
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    change(manifest)
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))


def _edit_config(change: Callable[[_Document], object], path: Path) -> None:
    document = json.loads((path / "config.json").read_text())
    change(document)
    (path / "config.json").write_text(json.dumps(document))
    reseal(path)


def _write(name: str, text: str, path: Path) -> None:
    (path / name).write_text(text)
    if name != MANIFEST_NAME:
        reseal(path)


def _make_pipe(path: Path) -> None:
    (path / "metrics.json").unlink()
    os.mkfifo(path / "metrics.json")


_DEEP: Final = "[" * 100_000
# What is wrong with a bundle in words, and how it comes about.
DAMAGES: Final[Mapping[str, Callable[[Path], object]]] = {
    "no files": partial(_edit_manifest, lambda manifest: manifest.pop("files")),
    "null for files": partial(_edit_manifest, lambda manifest: manifest.update(files=None)),
    "a file without bytes": partial(
        _edit_manifest, lambda manifest: manifest["files"][0].pop("bytes")
    ),
    "a file without a sum": partial(
        _edit_manifest, lambda manifest: manifest["files"][0].pop("sha256")
    ),
    "a device for a file": partial(
        _edit_manifest, lambda manifest: manifest["files"][0].update(path="/dev/zero", bytes=0)
    ),
    "a file of another folder": partial(
        _edit_manifest, lambda manifest: manifest["files"][0].update(path="../x", bytes=0)
    ),
    "a hash that is none": partial(
        _edit_manifest, lambda manifest: manifest.update(readout_compatible_with=["zz"])
    ),
    "no hashes": partial(_edit_manifest, lambda manifest: manifest.pop("readout_compatible_with")),
    "a deep manifest": partial(_write, MANIFEST_NAME, _DEEP),
    "deep metrics": partial(_write, "metrics.json", _DEEP),
    "a deep config": partial(_write, "config.json", _DEEP),
    "metrics that are a list": partial(_write, "metrics.json", "[1]"),
    "metrics cut off": partial(_write, "metrics.json", "{"),
    "a pipe for metrics": _make_pipe,
    "more rows than a machine has": partial(
        _edit_config, lambda config: config["vocabulary"].update(spare_item_rows=10**12)
    ),
    "weights that are NaN": partial(set_weight, value=float("nan")),
}
