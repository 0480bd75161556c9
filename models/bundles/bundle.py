"""Bundles: a trained model with everything that is needed to serve it (docs/concepts.md, "Bundle").

`bundles/<model>/<version>/` holds `model.safetensors`, `config.json`, `vocabulary.parquet`,
`metrics.json` and, last, `manifest.json`. Loading never unpickles, checks every sum, and refuses
what it does not know. The hash of a bundle is over weights, config and vocabulary, so that two
runs with the same result have the same hash, whatever their version is called.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from uic.models.bundles.documents import (
    CONFIG,
    HASHED,
    METRICS,
    STATE_MODEL,
    VOCABULARY,
    WEIGHTS,
    BundleConfig,
    BundleError,
    load_config,
    load_metrics,
    read_bundle_manifest,
)
from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.layers.ranker_settings import HeadInputs, RankerSettings
from uic.models.memory.network import MemoryNetwork
from uic.models.published import (
    verify_checksums,
)
from uic.models.rankers.catalogue import model_kind
from uic.models.rankers.mimn import Mimn
from uic.models.rankers.ranker import Ranker
from uic.models.samples.vocabulary import Vocabulary, load_vocabulary
from uic.models.state.definition import StateDefinition
from uic.models.state.shown import with_shown
from uic.models.training.run_spec import section_from

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
        return _stored_settings(self.path, self.config)

    @property
    def read_columns(self) -> tuple[EventColumn, ...]:
        """What a fold reads of the log beside what all events have: those, and of lists' items."""
        return with_shown(self.event_columns, shown=self.reads_shown)

    @property
    def reads_shown(self) -> bool:
        """Whether a part of the record reads what was shown."""
        return self.state is not None and self.state.reads_shown

    @property
    def event_columns(self) -> tuple[EventColumn, ...]:
        """What the fold reads of an event beside what all events have."""
        return self.config.event_columns

    @property
    def has_memory(self) -> bool:
        """Whether the model keeps a memory per user."""
        return isinstance(self.model, Mimn)

    @cached_property
    def state(self) -> StateDefinition | None:
        """The exact parts of a record, as `state.yaml` declared them; None for none."""
        document = self.config.state
        where = f"{self.path / CONFIG}: state"
        return None if document is None else StateDefinition.of_document(document, where)

    @cached_property
    def parts_sum(self) -> bytes:
        """What two bundles have in common whose records hold the same exact parts.

        Their definition, and the columns of events that they read; empty without parts.
        """
        if self.state is None:
            return b""
        columns = sorted(repr(one) for one in self.event_columns if one.name in self.state.reads)
        return "\n".join([self.state.sha256, *columns]).encode()

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
        path / VOCABULARY,
        sizes.spare_item_rows,
        sizes.spare_category_rows,
        config.features,
        config.event_features,
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
        hash8=hash_of(manifest["files"])[:HASH_BYTES],
        config=config,
        vocabulary=vocabulary,
        model=model,
        metrics=load_metrics(path / METRICS),
        manifest=manifest,
    )


def without_network() -> Ranker:
    """What stands in a bundle of exact parts alone: it ranks nothing."""
    return Ranker(RankerSettings(head_inputs=HeadInputs.PAPER), 1, 1, {}, ())


def _load_model(path: Path, config: BundleConfig, vocabulary: Vocabulary) -> Ranker:
    model = _built_model(path, config, vocabulary)
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
    refuse_not_finite(tensors, path / WEIGHTS)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(requires_grad=False)


def _stored_settings(path: Path, config: BundleConfig) -> RankerSettings:
    """What a bundle was trained with, also one that is older than some of the settings."""
    kind = model_kind(config.model).settings
    return section_from(kind, kind.stored(config.settings), f"{path / CONFIG}: settings.")


def _built_model(path: Path, config: BundleConfig, vocabulary: Vocabulary) -> Ranker:
    with torch.random.fork_rng(devices=[]):
        if config.model == STATE_MODEL:
            return without_network()
        try:
            settings = _stored_settings(path, config)
        except BadInputError as error:
            msg = f"{path / CONFIG}: {error}" if "config.json" not in str(error) else str(error)
            raise BundleError(msg) from error
        model = model_kind(config.model).build(
            settings, vocabulary.item.rows, vocabulary.category.rows
        )
        model.attach_features(vocabulary.features)
        model.attach_event_features(vocabulary.events)
        model.attach_tasks(config.tasks)
        return model


def refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors with a NaN or an infinite number: a `BundleError` that names one."""
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


def hash_of(files: list[dict[str, Any]]) -> bytes:
    """The bundle's hash: sha256 over the sums of weights, config and vocabulary, in that order."""
    sums = {entry["path"]: entry["sha256"] for entry in files}
    return hashlib.sha256("".join(sums[name] for name in HASHED).encode()).digest()
