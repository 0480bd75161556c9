"""Directories that are published whole or not at all.

Every output that another step reads (samples, snapshots, bundles) is a directory with a
`manifest.json` that names each file with its size, rows and sha256. The order of a publication:

1. Files are written into the directory under names that no earlier attempt used.
2. They are synced to disk.
3. `manifest.json` is replaced in one rename. This is the moment of publication.
4. Files that the manifest does not name (an earlier version, a killed attempt) are removed.

A reader takes the file list from the manifest and never from the directory, so whatever a kill
leaves behind is not read. A manifest holds no clock time and no host name: two runs of the same
input give the same bytes.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from uic.models.errors import BadInputError, ManifestError, UicError

MANIFEST_NAME: Final = "manifest.json"
_CHUNK_BYTES: Final = 1 << 20


class LockError(BadInputError):
    """A lock file cannot be made."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Changes with the file under a name, for caches in processes that outlive it.

    Returns:
        Inode, bytes and time of change in nanoseconds; nothing where there is no file, which the
        read tells.
    """
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def file_entry(root: Path, path: Path, rows: int | None = None) -> dict[str, Any]:
    """The manifest's line for one file: path relative to `root`, bytes, sha256, rows if given."""
    entry: dict[str, Any] = {
        "path": path.relative_to(root).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }
    if rows is not None:
        entry["rows"] = rows
    return entry


def write_json_atomically(path: Path, document: Any) -> None:
    """Replace `path` by `document` as JSON; see `write_bytes_atomically`."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, in one rename, synced to disk before and after."""
    with replacement(path) as draft:
        draft.write_bytes(content)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A draft beside `path` to be written; a kill at any moment leaves the old file or the new one.

    1. The body writes the draft.  2. It is synced.  3. It is renamed.  4. The directory is synced.
    """
    make_directory(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        sync_file(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def drafted_part(path: Path, failure: type[UicError]) -> Iterator[None]:
    """A part of a publication that the body writes to `path`; synced, or removed on an error.

    Raises:
        UicError: of the class `failure`, where the system could not write.
    """
    try:
        make_directory(path.parent)
        yield
        sync_file(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        msg = f"{path}: cannot be written: {reason}; make room or give another --workspace"
        raise failure(msg) from error


@contextmanager
def only_writer(lock: Path, busy: UicError | None = None) -> Iterator[None]:
    """Hold the lock file `lock`; the system frees it when the process dies.

    Args:
        lock: made if it is missing, and never removed.
        busy: raised where another process holds the lock; None waits for it.

    Raises:
        LockError: the lock file cannot be made.
        UicError: `busy`.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        place = error.filename or lock
        msg = f"{place}: cannot be written ({error.strerror}); give another --workspace"
        raise LockError(msg) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            assert busy is not None  # noqa: S101 - without LOCK_NB the call waits
            raise busy from error
        yield


def lock_of(output: Path) -> Path:
    """The lock file of a directory, beside it: a publication removes what its manifest lacks."""
    return output.parent / f".{output.name}.lock"


def name_draft(draft: Path, final: Path) -> None:
    """Give a written draft its final name; an earlier attempt may have done so already."""
    if draft.exists() or not final.exists():
        draft.replace(final)


def sync_file(path: Path) -> None:
    """Bring a written file to disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def make_directory(directory: Path) -> None:
    """Make a directory and those above it; what was made survives a power cut."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in reversed(made):
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Steps 2 to 4 of a publication; `manifest["files"]` is a list of `file_entry`.

    `manifest` must hold `kind` (what this directory is) and `schema_version`.
    """
    folders = {root.parent}
    for entry in manifest["files"]:
        path = root / entry["path"]
        sync_file(path)
        folders.update(parent for parent in path.parents if parent.is_relative_to(root))
    for folder in sorted(folders):
        sync_directory(folder)
    write_json_atomically(root / MANIFEST_NAME, manifest)
    remove_unnamed_files(root, manifest)


def remove_unnamed_files(root: Path, manifest: dict[str, Any]) -> None:
    """Delete every file under `root` that the manifest does not name, then empty folders."""
    named = {entry["path"] for entry in manifest["files"]} | {MANIFEST_NAME}
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(root).as_posix() not in named:
            path.unlink()


def read_manifest(root: Path, kind: str, schema_version: int) -> dict[str, Any]:
    """The manifest of a published directory.

    Raises:
        ManifestError: there is none (not published, or half-written), it is of another kind or
            of another schema version, or a file that it names is missing or of another size.
    """
    path = root / MANIFEST_NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path}: missing: {root} was never published, or its run was cut off; run it again"
        raise ManifestError(msg) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"{path}: not JSON ({error}); publish the directory again"
        raise ManifestError(msg) from error
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        kind_there = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        msg = f"{path}: kind is {kind_there!r}, expected {kind!r}"
        raise ManifestError(msg)
    if manifest.get("schema_version") != schema_version:
        msg = (
            f"{path}: schema_version is {manifest.get('schema_version')!r}, "
            f"this code reads {schema_version}; make it again with this version"
        )
        raise ManifestError(msg)
    for entry in _entries(path, manifest):
        file = root / entry["path"]
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            state = "missing" if size is None else f"{size} bytes"
            msg = f"{file}: {state}, the manifest says {entry['bytes']} bytes; make it again"
            raise ManifestError(msg)
    return manifest


def _entries(path: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The files of a manifest, each within its directory.

    Raises:
        ManifestError: they are no list of paths and sizes, or a path leads out.
    """
    entries = manifest.get("files")
    whole = isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("path"), str)
        and type(entry.get("bytes")) is int
        for entry in entries
    )
    if not whole:
        msg = f"{path}: files is no list of path and bytes; publish the directory again"
        raise ManifestError(msg)
    files: list[dict[str, Any]] = manifest["files"]
    for entry in files:
        name = Path(entry["path"])
        if name.is_absolute() or ".." in name.parts:
            msg = f"{path}: names {entry['path']!r}, which is outside of the directory"
            raise ManifestError(msg)
    return files


def verify_checksums(root: Path, manifest: dict[str, Any]) -> None:
    """Read every named file and compare its sha256.

    Raises:
        ManifestError: names the first file that differs, and both sums.
    """
    for entry in manifest["files"]:
        if not isinstance(entry.get("sha256"), str):
            msg = f"{root / MANIFEST_NAME}: no sha256 of {entry['path']}; publish it again"
            raise ManifestError(msg)
        sha256 = sha256_of(root / entry["path"])
        if sha256 != entry["sha256"]:
            msg = (
                f"{root / entry['path']}: sha256 is {sha256[:12]}…, "
                f"the manifest says {entry['sha256'][:12]}…; the file was changed or damaged"
            )
            raise ManifestError(msg)
