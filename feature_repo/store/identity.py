"""Who a workspace is: `workspace.json` at its root, with an id that no other workspace has.

A workspace is a folder, and folders are copied. So the file also says where it was written: its
path, and the inode and device of the file itself, which a copy cannot keep. Where the inode is
another one, or both path and device are, this is a copy (or a backup that was put back), and gets
an id of its own; the store of the original then refuses its writes until `uic store adopt`. A
folder that was moved within its file system keeps the inode, and its id. A device alone says
nothing: its number may change with each mount.
"""

import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from uic.models.errors import ManifestError
from uic.models.published import only_writer, replacement

NAME: Final = "workspace.json"
_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Identity:
    """A workspace as the store knows it.

    Args:
        id: 32 hexadecimal digits.
        place: machine and folder, for people.
        copy_of: id of the workspace that this one is a copy of; empty for none.
    """

    id: str
    place: str
    copy_of: str = ""


def known_identity(workspace: Path) -> Identity | None:
    """The identity as it is on disk; None for a workspace that has none yet, or is a copy.

    Raises:
        ManifestError: the file is damaged.
    """
    found = _read(workspace)
    return found.identity if found is not None and found.was_written_here else None


def identity_of(workspace: Path) -> Identity:
    """The identity, made at first use; a copy gets one of its own, a moved folder keeps its id.

    Raises:
        ManifestError: the file is damaged.
        LockError: the workspace cannot be written.
    """
    found = _read(workspace)
    if found is None or not found.is_noted:
        with only_writer(workspace / f".{NAME}.lock"):
            found = _renewed(workspace, _read(workspace))
    return found.identity


@dataclass(frozen=True)
class _Found:
    """The file as it is: what it says of itself, and the folder and inode where it is."""

    document: dict[str, Any]
    path: str
    device: int
    inode: int

    @property
    def was_written_here(self) -> bool:
        """Whether the file is the one that was written, not a copy of it."""
        same_place = self.document["path"] == self.path or self.document["device"] == self.device
        return same_place and bool(self.document["inode"] == self.inode)

    @property
    def is_noted(self) -> bool:
        """Whether nothing of the file is to be written anew."""
        return self.was_written_here and bool(self.document["path"] == self.path)

    @property
    def identity(self) -> Identity:
        place = f"{socket.gethostname()}:{self.path}"
        return Identity(str(self.document["id"]), place, str(self.document["copy_of"]))


def _renewed(workspace: Path, found: _Found | None) -> _Found:
    """What the file says from now on; called under its lock."""
    if found is None:
        return _written(workspace, uuid.uuid4().hex, "")
    if not found.was_written_here:
        return _written(workspace, uuid.uuid4().hex, found.identity.id)
    if not found.is_noted:
        return _written(workspace, found.identity.id, found.identity.copy_of)
    return found


def _written(workspace: Path, identity: str, copy_of: str) -> _Found:
    path = str(workspace.resolve())
    with replacement(workspace / NAME) as draft:
        draft.touch()
        state = draft.stat()  # a rename keeps the inode
        document = {
            "schema_version": _SCHEMA_VERSION,
            "id": identity,
            "copy_of": copy_of,
            "path": path,
            "device": state.st_dev,
            "inode": state.st_ino,
        }
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return _Found(document, path, state.st_dev, state.st_ino)


def _read(workspace: Path) -> _Found | None:
    path = workspace / NAME
    try:
        with path.open(encoding="utf-8") as stream:
            state = os.fstat(stream.fileno())  # of what is read, though it be replaced meanwhile
            document = json.load(stream)
        whole = {"id": str, "copy_of": str, "path": str, "device": int, "inode": int}
        if all(isinstance(document[name], kind) for name, kind in whole.items()):
            return _Found(document, str(workspace.resolve()), state.st_dev, state.st_ino)
        reason = "a field is of another type"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    msg = (
        f"{path}: does not say who this workspace is ({reason}); restore it from a backup, or "
        "remove it and run `uic store adopt`"
    )
    raise ManifestError(msg)
