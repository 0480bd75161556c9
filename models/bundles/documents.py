"""The documents of a bundle: its manifest, `config.json` and `metrics.json`, read and checked."""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from uic.models.errors import UicError
from uic.models.features.event_columns import EventColumn
from uic.models.published import MANIFEST_NAME, read_manifest
from uic.models.settings import Section
from uic.models.training.run_spec import SettingError, section_from

BUNDLE_KIND: Final = "bundle"
# The name of a bundle of exact parts alone.
STATE_MODEL: Final = "state"
BUNDLE_FORMAT: Final = 1

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
VOCABULARY: Final = "vocabulary.parquet"
METRICS: Final = "metrics.json"
# What decides a bundle's hash; metrics do not.
HASHED: Final = (WEIGHTS, CONFIG, VOCABULARY)


class BundleError(UicError):
    """A directory is not a bundle that this code can serve."""


class VocabularySizes(Section):
    """How many ids the vocabulary must hold, and its spare rows."""

    item_ids: int = Field(description="items with a row of their own; count")
    category_ids: int = Field(description="categories with a row of their own; count")
    spare_item_rows: int = Field(
        ge=0, le=1 << 31, description="rows that all other items share; count"
    )
    spare_category_rows: int = Field(
        ge=0, le=1 << 31, description="rows that all other categories share; count"
    )


class BundleConfig(Section):
    """`config.json`: what must be known to rebuild the model."""

    format_version: int = Field(description="version of this file's meaning")
    model: str = Field(description="name of the model in the catalogue")
    settings: dict[str, Any] = Field(description="every hyper-parameter of the model")
    training: dict[str, Any] = Field(description="every setting of its training")
    seed: int = Field(description="of weights and shuffle")
    vocabulary: VocabularySizes = Field(description="sizes of the vocabulary")
    features: list[dict[str, Any]] = Field([], description="features beside ids, as fitted")
    event_features: list[dict[str, Any]] = Field(
        [], description="features of events that the fold reads, as fitted"
    )
    event_columns: tuple[EventColumn, ...] = Field(
        (), description="columns of events that the fold reads beside ids"
    )
    state: dict[str, Any] | None = Field(None, description="exact parts of a record (state.yaml)")

    @property
    def tasks(self) -> dict[str, float]:
        """Labels beside the click that the model has heads for, with their weights."""
        weights: dict[str, float] = self.training.get("task_weights", {})
        return weights


def read_bundle_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, without reading its files.

    Raises:
        ManifestError: see `uic.models.published.read_manifest`.
        BundleError: a newer format, or a needed file that the manifest does not name.
    """
    manifest_path = path / MANIFEST_NAME
    if manifest_path.exists():
        _refuse_newer(manifest_path, "schema_version")
    manifest = read_manifest(path, BUNDLE_KIND, BUNDLE_FORMAT)
    named = {entry["path"] for entry in manifest["files"]}
    for name in (*HASHED, METRICS):
        if name not in named:
            msg = f"{manifest_path}: names no {name}; the bundle is incomplete, train it again"
            raise BundleError(msg)
    try:
        for text in manifest["readout_compatible_with"]:
            bytes.fromhex(text)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{manifest_path}: readout_compatible_with is no list of hashes; copy it again"
        raise BundleError(msg) from error
    return manifest


def _refuse_newer(path: Path, key: str) -> None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"{path}: not JSON ({error}); copy the bundle again"
        raise BundleError(msg) from error
    version = document.get(key) if isinstance(document, dict) else None
    if isinstance(version, int) and version > BUNDLE_FORMAT:
        msg = (
            f"{path}: {key} is {version}, this code reads up to {BUNDLE_FORMAT}; "
            "install the version that wrote it, or a newer one"
        )
        raise BundleError(msg)


def load_metrics(path: Path) -> dict[str, Any]:
    """`metrics.json`.

    Raises:
        BundleError: it is no JSON object.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"{path}: not JSON ({error}); copy the bundle again"
        raise BundleError(msg) from error
    if not isinstance(metrics, dict):
        msg = f"{path}: found {type(metrics).__name__}, expected an object; copy the bundle again"
        raise BundleError(msg)
    return metrics


def load_config(path: Path) -> BundleConfig:
    """`config.json`.

    Raises:
        BundleError: it is of a newer format, or a key is unknown or wrong.
    """
    _refuse_newer(path, "format_version")
    try:
        return section_from(BundleConfig, json.loads(path.read_text(encoding="utf-8")), f"{path}: ")
    except SettingError as error:
        raise BundleError(str(error)) from error
