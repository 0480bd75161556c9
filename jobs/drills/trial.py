"""A workspace to try the stream in: embedded Redis, an untrained bundle, an empty generation.

For the crash drill, tests and benchmarks. What a memory holds there means nothing, but every byte
of it is computed as with a trained bundle, which is all that these compare.
"""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uic.feature_repo.store.connection import STORE_FOLDER, connect, resolve_address
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.config.config import Config
from uic.jobs.config.context import Context
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.memory.fold import MemoryFolder
from uic.models.rankers.catalogue import model_kind
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.state.definition import StateDefinition
from uic.models.training.run_spec import Days, RunSpec
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trained

_DAY = date(2025, 1, 1)


def untrained_bundle(path: Path, items: int, categories: int) -> Bundle:
    """Save and load a bundle with seeded random weights.

    Args:
        path: `<bundles>/<model>/<version>`.
        items: ids 0 to items - 1 have rows of their own.
        categories: likewise.
    """
    kind = model_kind(path.parent.name)
    training = TrainSettings()
    vocabulary = Vocabulary(
        IdTable(np.arange(items, dtype=np.int64), training.spare_item_rows),
        IdTable(np.arange(categories, dtype=np.int64), training.spare_category_rows),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind.build(kind.settings(), vocabulary.item.rows, vocabulary.category.rows)
    spec = RunSpec(
        model=path.parent.name,
        settings=kind.settings(),
        training=training,
        days=Days(_DAY, _DAY),
        seed=1,
        samples="none",
        samples_sha256="",
    )
    trained = Trained(spec, model.eval(), vocabulary, None, [], [])
    # A ranker that reads histories is not served with parts.
    state = every_part() if path.parent.name == "mimn" else None
    save_bundle(path, trained, state=state)
    return load_bundle(path)


def every_part() -> StateDefinition:
    """Exact parts of each kind, so small that entries go out, which drills carry with a memory."""
    parts = {
        "items": {"kind": "counts", "size": 24, "half_lives": ["1d"]},
        "ids": {"kind": "counts", "size": 6, "fingerprint_bits": 64, "count_bits": 16},
        "categories": {"kind": "counts", "by": "category", "size": 8},
        "bought": {"kind": "rates", "half_life": "30d"},
        "recent": {"kind": "recent", "size": 4},
        "shown": {"kind": "rates", "by": "item", "exposures": ["shown"], "successes": ["click"]},
        "sampled": {"kind": "rates", "exposures": ["shown"], "sample": 0.5, "half_life": "7d"},
        "visits": {
            "kind": "aggregate",
            "functions": ["count", "distinct"],
            "windows": ["1h", "1d"],
            "tile": "1h",
        },
    }
    return StateDefinition.of_document({"version": 1, "parts": parts}, "drill")


def trial_context(workspace: Path, stream: dict[str, Any], **sections: Any) -> Context:
    """A context whose section `stream` has these settings."""
    return Context(workspace, Config(stream=stream, **sections), None)


def start_trial(
    context: Context,
    items: int = 5000,
    categories: int = 100,
    options: tuple[str, ...] = (),
    bundle: Bundle | None = None,
) -> tuple[EmbeddedRedis, MemoryFolder]:
    """Start Redis in the workspace, with a live and empty generation 1.

    Args:
        context: of `trial_context`.
        items: of the bundle's vocabulary.
        categories: likewise.
        options: of `redis-server`.
        bundle: of the generation; None for one with an untrained memory and every kind of part.

    Returns:
        The server, which the caller stops, and the fold of generation 1.
    """
    server = EmbeddedRedis(context.workspace / STORE_FOLDER, options)
    server.start()
    path = context.bundles / "mimn" / "untrained"
    if bundle is None:
        bundle = load_bundle(path) if path.exists() else untrained_bundle(path, items, categories)
    folder = MemoryFolder(bundle, 1)
    address = resolve_address(context.config.store, context.workspace)
    keys = ViewKeys.of_memories(context.config.store.project)
    generations = Generations(connect(address), keys, str(address))
    generations.register(
        Generation(
            number=1,
            rows_expected=0,
            bundle=bundle.hash8,
            bundle_name=f"{bundle.name}/{bundle.version}",
            record_bytes=folder.record_bytes,
            positions={},
            snapshot="",
        )
    )
    generations.complete(1, np.empty(0, dtype=np.int64))
    generations.switch(1, 0.0)
    return server, folder
