"""Bundles: a trained model with everything that is needed to serve it (docs/concepts.md, "Bundle").

`bundles/<model>/<version>/` holds `model.safetensors`, `config.json`, `vocabulary.parquet`,
`metrics.json` and, last, `manifest.json`. Loading never unpickles, checks every sum, and refuses
what it does not know. The hash of a bundle is over weights, config and vocabulary, so that two
runs with the same result have the same hash, whatever their version is called.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from uic.models.bundles.documents import (
    BUNDLE_FORMAT,
    BUNDLE_KIND,
    CONFIG,
    HASHED,
    METRICS,
    VOCABULARY,
    WEIGHTS,
    BundleConfig,
    BundleError,
    VocabularySizes,
    load_config,
    load_metrics,
    read_bundle_manifest,
)
from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.kernels.compiled import folded_by
from uic.models.layers.ranker_settings import RankerSettings
from uic.models.memory.network import MemoryNetwork
from uic.models.published import (
    MANIFEST_NAME,
    file_entry,
    publish_manifest,
    verify_checksums,
)
from uic.models.rankers.catalogue import model_kind
from uic.models.rankers.mimn import Mimn
from uic.models.rankers.ranker import Ranker
from uic.models.samples.vocabulary import Vocabulary, load_vocabulary
from uic.models.training.run_spec import section_from
from uic.models.training.trainer import Trained

DISTRIBUTION: Final = "user-interest-center"
HASH_BYTES: Final = 8


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: its directory.
        hash8: first 8 bytes of the hash over weights, config and vocabulary.
        config: `config.json`.
        vocabulary: id to row.
        model: in evaluation mode, on the CPU, without gradients.
        metrics: `metrics.json`.
        manifest: `manifest.json`.
    """

    path: Path
    hash8: bytes
    config: BundleConfig
    vocabulary: Vocabulary
    model: Ranker
    metrics: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.model

    @property
    def version(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def readout_compatible_with(self) -> frozenset[bytes]:
        """Hashes of the bundles whose memories this one's readout understands; its own included."""
        listed = (bytes.fromhex(text) for text in self.manifest["readout_compatible_with"])
        return frozenset(listed) | {self.hash8}

    @property
    def settings(self) -> RankerSettings:
        """The model's hyper-parameters."""
        kind = model_kind(self.config.model).settings
        return section_from(kind, self.config.settings, f"{self.path / CONFIG}: settings.")

    @property
    def event_columns(self) -> tuple[EventColumn, ...]:
        """What the fold reads of an event beside what all events have."""
        return self.config.event_columns

    @property
    def has_memory(self) -> bool:
        """Whether the model keeps a memory per user."""
        return isinstance(self.model, Mimn)

    @property
    def memory(self) -> MemoryNetwork:
        """The memory network.

        Raises:
            BundleError: the model keeps none.
        """
        if not isinstance(self.model, Mimn):
            msg = f"{self.path}: model {self.name} keeps no memory; use a bundle of mimn"
            raise BundleError(msg)
        return self.model.memory

    @torch.no_grad()
    def embed(self, item_ids: NDArray[np.int64], category_ids: NDArray[np.int64]) -> Tensor:
        """Items as vectors: (n,), (n,) to (n, event width), float32."""
        items = torch.from_numpy(self.vocabulary.item.lookup(item_ids))
        categories = torch.from_numpy(self.vocabulary.category.lookup(category_ids))
        vectors: Tensor = self.model.embedding(items, categories)
        return vectors


def save_bundle(
    path: Path, trained: Trained, readout_compatible_with: tuple[bytes, ...] = ()
) -> bytes:
    """Publish a trained model as the directory `path`; returns its `hash8`.

    Args:
        path: `<bundles>/<model>/<version>`, new or left by a killed attempt.
        trained: the run's result.
        readout_compatible_with: hashes of bundles whose memories the readout understands.

    Raises:
        BundleError: the version is published already, or a weight is not a finite number.
    """
    if (path / MANIFEST_NAME).exists():
        msg = f"{path}: this version is published already; choose another --version"
        raise BundleError(msg)
    path.mkdir(parents=True, exist_ok=True)
    spec, vocabulary = trained.spec, trained.vocabulary
    config = BundleConfig(
        format_version=BUNDLE_FORMAT,
        model=spec.model,
        settings=spec.settings.model_dump(mode="json"),
        training=spec.training.document(),
        seed=spec.seed,
        vocabulary=VocabularySizes(
            item_ids=vocabulary.item.ids.size,
            category_ids=vocabulary.category.ids.size,
            spare_item_rows=vocabulary.item.spare_rows,
            spare_category_rows=vocabulary.category.spare_rows,
        ),
        features=vocabulary.features.to_json(),
    )
    tensors = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
    _refuse_not_finite(tensors, path / WEIGHTS)
    save_file(tensors, path / WEIGHTS)
    # Without features the file is what it was before there were any, and so is the bundle's hash.
    left_out = {name for name in ("features", "event_columns") if not getattr(config, name)}
    _write_json(path / CONFIG, config.model_dump(mode="json", exclude=left_out))
    vocabulary.save(path / VOCABULARY)
    days = spec.days
    metrics = {
        "test": None if trained.metrics is None else trained.metrics.to_json(),
        "test_days": [str(days.test_first), str(days.test_last)] if days.test_first else None,
        "baselines": None if trained.baselines is None else trained.baselines.to_json(),
        "epochs": trained.epochs,
        "curve": trained.curve,
    }
    _write_json(path / METRICS, metrics)
    files = [file_entry(path, path / name) for name in (*HASHED, METRICS)]
    manifest = {
        "kind": BUNDLE_KIND,
        "schema_version": BUNDLE_FORMAT,
        "files": files,
        "hash": _hash_of(files).hex(),
        "training_data": {
            "samples": spec.samples,
            "manifest_sha256": spec.samples_sha256,
            "first_day": str(days.first),
            "last_day": str(days.last),
        },
        "warm_start": {"bundle": spec.warm_start, "except_ids": spec.except_ids},
        "folded_by": folded_by(),
        "code_version": importlib.metadata.version(DISTRIBUTION),
        "readout_compatible_with": sorted(hash8.hex() for hash8 in readout_compatible_with),
    }
    publish_manifest(path, manifest)
    return _hash_of(files)[:HASH_BYTES]


def load_bundle(path: Path) -> Bundle:
    """Load and check a bundle.

    Raises:
        ManifestError: no manifest, not a bundle, or a file with another sum.
        BundleError: a newer format, an unknown key, a missing, unknown or misshapen tensor, or a
            vocabulary of another size; each by name.
    """
    manifest = read_bundle_manifest(path)
    verify_checksums(path, manifest)
    config = load_config(path / CONFIG)
    sizes = config.vocabulary
    vocabulary = load_vocabulary(
        path / VOCABULARY, sizes.spare_item_rows, sizes.spare_category_rows, config.features
    )
    for name, table, expected in (
        ("item", vocabulary.item, sizes.item_ids),
        ("category", vocabulary.category, sizes.category_ids),
    ):
        if table.ids.size != expected:
            msg = (
                f"{path / VOCABULARY}: {table.ids.size} {name} ids, {CONFIG} says {expected}; "
                "vocabulary and model are of different runs"
            )
            raise BundleError(msg)
    model = _load_model(path, config, vocabulary)
    return Bundle(
        path=path,
        hash8=_hash_of(manifest["files"])[:HASH_BYTES],
        config=config,
        vocabulary=vocabulary,
        model=model,
        metrics=load_metrics(path / METRICS),
        manifest=manifest,
    )


def _load_model(path: Path, config: BundleConfig, vocabulary: Vocabulary) -> Ranker:
    try:
        kind = model_kind(config.model)
        settings = section_from(kind.settings, config.settings, f"{path / CONFIG}: settings.")
    except BadInputError as error:
        msg = f"{path / CONFIG}: {error}" if "config.json" not in str(error) else str(error)
        raise BundleError(msg) from error
    with torch.random.fork_rng(devices=[]):
        model = kind.build(settings, vocabulary.item.rows, vocabulary.category.rows)
        model.attach_features(vocabulary.features)
        model.attach_tasks(config.tasks)
    try:
        tensors = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        msg = f"{path / WEIGHTS}: not readable as safetensors ({error}); copy the bundle again"
        raise BundleError(msg) from error
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            msg = f"{path / WEIGHTS}: tensor {name} is missing; train the bundle again"
            raise BundleError(msg)
        if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
            msg = (
                f"{path / WEIGHTS}: tensor {name} is {_described(tensors[name])}, "
                f"expected {_described(tensor)}"
            )
            raise BundleError(msg)
    for name in tensors:
        if name not in expected:
            msg = f"{path / WEIGHTS}: tensor {name} is unknown to model {config.model}"
            raise BundleError(msg)
    _refuse_not_finite(tensors, path / WEIGHTS)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(requires_grad=False)


def _refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            wrong = int((~tensor.isfinite()).sum())
            msg = (
                f"{path}: tensor {name} has {wrong} numbers that are not finite: the training went "
                "astray, or the file is damaged; train again, with a smaller learning rate"
            )
            raise BundleError(msg)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _hash_of(files: list[dict[str, Any]]) -> bytes:
    """The bundle's hash: sha256 over the sums of weights, config and vocabulary, in that order."""
    sums = {entry["path"]: entry["sha256"] for entry in files}
    return hashlib.sha256("".join(sums[name] for name in HASHED).encode()).digest()


def _write_json(path: Path, document: Any) -> None:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
