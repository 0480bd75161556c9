"""Whether a generation may be folded with a bundle; without loading the bundle.

The supervisor lives as long as the stream, and the commands that look at it are to answer at once:
neither loads torch.
"""

import json
from pathlib import Path
from typing import Final

from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.writer import FOLDABLE_STATES
from uic.models.errors import BadInputError, ManifestError
from uic.models.features.event_columns import EventColumn
from uic.models.published import read_manifest, verify_checksums

# As `uic.models.bundles.bundle` writes them; importing it would load torch.
_BUNDLE_KIND: Final = "bundle"
_BUNDLE_FORMAT: Final = 1
_BUNDLE_CONFIG: Final = "config.json"
_HASH_BYTES: Final = 8


class UnfitGenerationError(BadInputError):
    """A generation cannot be folded: it is not ready, or the bundle is another one."""


def check_fit(generation: Generation, bundle: Path) -> None:
    """Refuse a generation that is not ready, or was made by another bundle than `bundle`.

    Raises:
        UnfitGenerationError: says which.
        ManifestError: `bundle` is not a published bundle, or a file of it is damaged.
    """
    manifest = read_manifest(bundle, _BUNDLE_KIND, _BUNDLE_FORMAT)
    # A worker would find a damaged file too, but in the middle of a task, again and again.
    verify_checksums(bundle, manifest)
    check_state_and_hash(generation, bytes.fromhex(manifest["hash"])[:_HASH_BYTES], bundle)


def event_columns_of(bundle: Path) -> tuple[EventColumn, ...]:
    """The columns of events that a bundle's fold reads.

    Raises:
        ManifestError: its configuration cannot be read.
    """
    path = bundle / _BUNDLE_CONFIG
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("event_columns", ())
        return tuple(EventColumn.model_validate(entry) for entry in entries)
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: cannot be read as a bundle's configuration ({reason}); copy it again"
        raise ManifestError(msg) from error


def check_state_and_hash(generation: Generation, hash8: bytes, bundle: Path) -> None:
    """The same, for a bundle whose hash is known; `bundle` is for the message."""
    if generation.state not in FOLDABLE_STATES:
        msg = (
            f"generation {generation.number} is {generation.state}, the stream needs "
            f"{' or '.join(FOLDABLE_STATES)}: a user it does not find must really be new; "
            "finish `uic memories load`"
        )
        raise UnfitGenerationError(msg)
    if generation.bundle != hash8:
        msg = (
            f"generation {generation.number} is of bundle {generation.bundle_name} "
            f"({generation.bundle.hex()}), {bundle} is {hash8.hex()}; give the bundle that built "
            "it, or build a generation with this one"
        )
        raise UnfitGenerationError(msg)
