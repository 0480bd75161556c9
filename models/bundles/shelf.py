"""The folder of all bundles: `<model>/<version>/`, and which version of a model is current.

`<model>/CURRENT` holds the name of one version. It is replaced in one rename, and is what a
command takes when it is given a model and no version.
"""

import re
from pathlib import Path
from typing import Final

from uic.models.bundles.documents import BundleError
from uic.models.published import MANIFEST_NAME, write_bytes_atomically

CURRENT_NAME: Final = "CURRENT"
_DIGITS: Final = 4  # of a version that is a number
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class BundleShelf:
    """Finds, names and points at bundles.

    Args:
        root: `<workspace>/bundles`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self, model: str) -> list[str]:
        """Published versions of a model, ascending by name."""
        folder = self.root / model
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if (path / MANIFEST_NAME).is_file())

    def models(self) -> list[str]:
        """Models with at least one published version."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if self.versions(path.name))

    def next_version(self, model: str) -> str:
        """`0001`, `0002`, …: one more than the largest number in use."""
        numbers = [int(name) for name in self.versions(model) if name.isdecimal()]
        return str(max(numbers, default=0) + 1).zfill(_DIGITS)

    def path(self, model: str, version: str) -> Path:
        """Where a version lies.

        Raises:
            BundleError: the name cannot be a folder's.
        """
        if not _VERSION.fullmatch(version):
            msg = f"version {version!r}: expected letters, digits, dot, dash, underscore; up to 64"
            raise BundleError(msg)
        return self.root / model / version

    def current(self, model: str) -> str | None:
        """The current version of a model, or None if none was chosen."""
        pointer = self.root / model / CURRENT_NAME
        return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None

    def choose(self, model: str, version: str) -> None:
        """Make a published version the current one.

        Raises:
            BundleError: it is not published.
        """
        version = self._named(model, version)
        if version not in self.versions(model):
            known = ", ".join(self.versions(model)) or "none"
            msg = f"{self.root / model}: no version {version!r}; there is: {known}"
            raise BundleError(msg)
        pointer = self.root / model / CURRENT_NAME
        write_bytes_atomically(pointer, f"{version}\n".encode())

    def find(self, reference: str) -> Path:
        """The directory that a person means.

        Args:
            reference: a path, `model/version` (`mimn/1` is `mimn/0001`), or `model` for its
                current version.

        Raises:
            BundleError: nothing of that name; lists what there is.
        """
        as_path = Path(reference)
        if (as_path / MANIFEST_NAME).is_file():
            return as_path
        model, _, version = reference.partition("/")
        number = self._named(model, version) if version else self.current(model)
        if number is not None and number in self.versions(model):
            return self.root / model / number
        known = [f"{name}/{version}" for name in self.models() for version in self.versions(name)]
        msg = (
            f"{self.root}: no bundle {reference!r}; there is: {', '.join(known) or 'none'}; "
            "make one with `uic train`"
        )
        raise BundleError(msg)

    def _named(self, model: str, version: str) -> str:
        """The version as it is named: `1` means `0001` where there is no `1`."""
        if version in self.versions(model) or not version.isdecimal():
            return version
        return version.zfill(_DIGITS)
