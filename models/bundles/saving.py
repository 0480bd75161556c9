"""How a bundle is written: the files, then the manifest (docs/concepts.md, "Bundle")."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file

from uic.models.bundles.bundle import HASH_BYTES, hash_of, refuse_not_finite, without_network
from uic.models.bundles.documents import (
    BUNDLE_FORMAT,
    BUNDLE_KIND,
    CONFIG,
    HASHED,
    METRICS,
    STATE_MODEL,
    VOCABULARY,
    WEIGHTS,
    BundleConfig,
    BundleError,
    VocabularySizes,
)
from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn, event_columns
from uic.models.kernels.compiled import folded_by
from uic.models.memory.slot_use import SlotUse
from uic.models.published import MANIFEST_NAME, file_entry, publish_manifest
from uic.models.rankers.ranker import Ranker
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.state.definition import StateDefinition
from uic.models.training.trainer import Trained

DISTRIBUTION: Final = "user-interest-center"


def save_bundle(
    path: Path,
    trained: Trained,
    readout_compatible_with: tuple[bytes, ...] = (),
    state: StateDefinition | None = None,
    columns: Sequence[EventColumn] = (),
    *,
    slots: SlotUse | None = None,
) -> bytes:
    """Publish a trained model as the directory `path`; returns its `hash8`.

    Args:
        path: `<bundles>/<model>/<version>`, new or left by a killed attempt.
        trained: the run's result.
        readout_compatible_with: hashes of bundles whose memories the readout understands.
        state: exact parts whose features the model was trained with.
        columns: of events that the site has.
        slots: how the memory's slots are used; None for a model without.

    Raises:
        BundleError: the version is published already, or a weight is not a finite number.
    """
    _begin(path)
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
        event_features=vocabulary.events.to_json(),
        event_columns=_columns_read(vocabulary, state, columns),
        state=None if state is None else state.document(),
    )
    days = spec.days
    metrics = {
        "test": None if trained.metrics is None else trained.metrics.to_json(),
        "test_days": [str(days.test_first), str(days.test_last)] if days.test_first else None,
        "baselines": None if trained.baselines is None else trained.baselines.to_json(),
        "validation": trained.validation(),
        "epochs": trained.epochs,
        "curve": trained.curve,
    }
    if slots is not None:
        metrics["slots"] = slots.to_json()
    facts = {
        "training_data": {
            "samples": spec.samples,
            "manifest_sha256": spec.samples_sha256,
            "first_day": str(days.first),
            "last_day": str(days.last),
        },
        "warm_start": {"bundle": spec.warm_start, "except_ids": spec.except_ids},
        "readout_compatible_with": sorted(hash8.hex() for hash8 in readout_compatible_with),
    }
    return _publish(path, config, trained.model, vocabulary, metrics=metrics, facts=facts)


def save_state(path: Path, state: StateDefinition, columns: Sequence[EventColumn]) -> bytes:
    """Publish the exact parts of a record as the directory `path`, a bundle without a network.

    Stream, warm-up, audit and store take it as any bundle; it ranks nothing.

    Args:
        path: `<bundles>/state/<version>`, new or left by a killed attempt.
        state: the parts.
        columns: of events that the site has.

    Returns:
        Its `hash8`.

    Raises:
        BundleError: the version is published already, or a part reads a column that is not there.
    """
    refuse_unknown_columns(state, columns)
    _begin(path)
    nothing = IdTable(np.zeros(0, np.int64), 1)
    config = BundleConfig(
        format_version=BUNDLE_FORMAT,
        model=STATE_MODEL,
        settings={},
        training={},
        seed=0,
        vocabulary=VocabularySizes(
            item_ids=0, category_ids=0, spare_item_rows=1, spare_category_rows=1
        ),
        event_columns=tuple(column for column in columns if column.name in state.reads),
        state=state.document(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = without_network()
    facts = {"readout_compatible_with": [], "state_sha256": state.sha256}
    return _publish(path, config, model, Vocabulary(nothing, nothing), metrics={}, facts=facts)


def _columns_read(
    vocabulary: Vocabulary, state: StateDefinition | None, columns: Sequence[EventColumn]
) -> tuple[EventColumn, ...]:
    """What the record's parts and its memory read of events, each once."""
    of_memory = {column.name: column for column in event_columns(vocabulary.events.definitions)}
    of_parts = {} if state is None else {c.name: c for c in columns if c.name in state.reads}
    return tuple((of_parts | of_memory).values())


def refuse_unknown_columns(state: StateDefinition, columns: Sequence[EventColumn]) -> None:
    """Refuse parts that read columns of events that a site does not have.

    Raises:
        BundleError: names the part and the column.
    """
    known = {column.name: column for column in columns}
    for part in state.parts:
        for name in sorted(part.reads - known.keys()):
            msg = (
                f"part {part.name} reads {name} of events, features.yaml declares "
                f"{', '.join(known) or 'no column of events'}; declare it under event: and import "
                "or send it"
            )
            raise BundleError(msg)
        for name in sorted(part.reads & known.keys()):
            if part.reads_ids and known[name].kind is not Kind.CATEGORICAL:
                msg = f"part {part.name} is by {name}, a number; declare it as categorical"
                raise BundleError(msg)
            if part.reads_numbers and known[name].kind is Kind.CATEGORICAL:
                msg = f"part {part.name} reckons with {name}, a category; declare it as number"
                raise BundleError(msg)


def _begin(path: Path) -> None:
    if (path / MANIFEST_NAME).exists():
        msg = f"{path}: this version is published already; choose another --version"
        raise BundleError(msg)
    path.mkdir(parents=True, exist_ok=True)


def _publish(
    path: Path,
    config: BundleConfig,
    model: Ranker,
    vocabulary: Vocabulary,
    *,
    metrics: dict[str, Any],
    facts: dict[str, Any],
) -> bytes:
    """Write the files, then the manifest with `facts`; returns the bundle's `hash8`."""
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    refuse_not_finite(tensors, path / WEIGHTS)
    save_file(tensors, path / WEIGHTS)
    # Without features or parts the file is what it was before there were any, and so is the hash.
    optional = ("features", "event_features", "event_columns", "state")
    left_out = {name for name in optional if not getattr(config, name)}
    _write_json(path / CONFIG, config.model_dump(mode="json", exclude=left_out))
    vocabulary.save(path / VOCABULARY)
    _write_json(path / METRICS, metrics)
    files = [file_entry(path, path / name) for name in (*HASHED, METRICS)]
    manifest = {
        "kind": BUNDLE_KIND,
        "schema_version": BUNDLE_FORMAT,
        "files": files,
        "hash": hash_of(files).hex(),
        "folded_by": folded_by(),
        "code_version": importlib.metadata.version(DISTRIBUTION),
        **facts,
    }
    publish_manifest(path, manifest)
    return hash_of(files)[:HASH_BYTES]


def _write_json(path: Path, document: Any) -> None:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
