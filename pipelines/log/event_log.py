"""The event log on disk: which epochs it has, and which files a reader may read.

```
log/epochs.json               the epochs, and the names of the published manifests
log/manifests/000001-NAME.json   one publication: its files with rows, bytes and sha256
log/behaviors/dt=…/*.parquet     `BEHAVIOR_EVENTS`, each file in order of (partition, offset)
log/shown/dt=…/*.parquet         what was shown, in the same positions (`pipelines/log/shown.py`)
log/impressions/dt=…/*.parquet   `IMPRESSIONS` and context columns, in order of event time
log/items/*.parquet              item_id, category_id; the newest publication's holds all items
log/ids/*.parquet                id, text: string ids of an import and the numbers they got
```

`epochs.json` is the one moment of publication: it is replaced in one rename, after the files and
their manifest are on disk. What it does not name does not exist for a reader, and the next writer
removes it (`uic.pipelines.log.writer`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from uic.models.errors import BadInputError, ManifestError, UicError
from uic.models.features.event_columns import EventColumn
from uic.models.published import only_writer, sync_directory, sync_file, write_json_atomically
from uic.pipelines.log.documents import LOG_SCHEMA_VERSION, check_version, read_json
from uic.pipelines.log.epochs import (
    Epoch,
    EpochKind,
    Loss,
    check_grown_epoch,
    check_new_epoch,
    epoch_from_json,
    epoch_to_json,
    with_columns,
)

__all__ = ["Epoch", "EventLog", "LogBusyError", "LogFile"]

EPOCHS_NAME: Final = "epochs.json"
Day = date | None
_TABLES: Final = ("behaviors", "shown", "impressions", "items", "ids", "rejects")


class LogBusyError(UicError):
    """Another process writes to this log."""


@dataclass(frozen=True)
class LogFile:
    """One published file; `rows` and `bytes` as the manifest says, `path` absolute or as `root`."""

    path: Path
    dt: date
    rows: int
    bytes: int
    epoch: int | None


class EventLog:
    """The log under `root` (`<workspace>/log`). Reads `epochs.json` afresh on every call."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def epochs(self) -> tuple[Epoch, ...]:
        """All epochs, oldest first; none if nothing was published yet."""
        return tuple(
            epoch_from_json(entry, self._epochs_path) for entry in self._document()["epochs"]
        )

    def manifests(self) -> list[dict[str, Any]]:
        """The published manifests, oldest first.

        Raises:
            ManifestError: one is missing or of another version.
        """
        manifests = []
        for name in self._document()["manifests"]:
            path = self.root / "manifests" / name
            manifest = read_json(path)
            if manifest.get("kind") != "event_log":
                msg = f"{path}: kind is {manifest.get('kind')!r}, expected 'event_log'"
                raise ManifestError(msg)
            check_version(manifest, path)
            manifests.append(manifest)
        return manifests

    def time_zone(self) -> str | None:
        """The zone whose days are `dt`; None for an empty log."""
        manifests = self.manifests()
        return manifests[-1]["time_zone"] if manifests else None

    def behavior_files(self, first: Day = None, last: Day = None) -> list[LogFile]:
        """Published behaviour files of the days `first` to `last` (both inclusive), by (dt, epoch).

        Raises:
            ManifestError: a named file is missing or of another size.
        """
        return self._files("behaviors", first, last)

    def impression_files(self, first: Day = None, last: Day = None) -> list[LogFile]:
        """Published impression files of the days `first` to `last`, as `behavior_files`."""
        return self._files("impressions", first, last)

    def shown_files(self, first: Day = None, last: Day = None) -> list[LogFile]:
        """Published files of what was shown, as `behavior_files`."""
        return self._files("shown", first, last)

    def items_file(self) -> Path | None:
        """`item_id, category_id` of every item published so far, one row an item; None if none."""
        return self._newest("items")

    def ids_file(self, kind: str) -> Path | None:
        """`id, text` of every string id of `kind` (user, item, category); None if none."""
        return self._newest(f"{kind}_ids")

    def held_back(self) -> str | None:
        """The day that a replay has taken out of the log, with all later ones; None if none."""
        day = self._document().get("held_back")
        return None if day is None else str(day)

    def append_epoch(
        self,
        *,
        kind: EpochKind,
        name: str,
        partitions: int,
        first_offsets: Mapping[int, int],
        offset_gaps: bool | None = None,
    ) -> Epoch:
        """Register a new epoch (a topic's; an import's is published with its files).

        Raises:
            EpochHandOverError: the partitions are not 0 to n - 1, an offset is negative, or a
                topic of this name is registered.
            LogBusyError: another process writes to this log.
        """
        with self.locked():
            document = self._document()
            number = len(document["epochs"]) + 1
            first = {int(key): int(value) for key, value in first_offsets.items()}
            last = {key: value - 1 for key, value in first.items()}
            epoch = Epoch(number, kind, name, partitions, first, last, offset_gaps)
            check_new_epoch(epoch, self.epochs(), self._epochs_path)
            document["epochs"].append(epoch_to_json(epoch))
            write_json_atomically(self._epochs_path, document)
        return epoch

    def note_offset_gaps(self, number: int) -> None:
        """Note that offsets of an epoch may leave out some; a topic that had gaps keeps them.

        Raises:
            LogBusyError: another process writes to this log.
        """
        with self._amended(number) as entry:
            entry["offset_gaps"] = True

    def note_losses(self, number: int, losses: Iterable[Loss]) -> None:
        """Note events of an epoch that are gone for good, and were accepted as lost.

        Raises:
            LogBusyError: another process writes to this log.
        """
        with self._amended(number) as entry:
            known = {tuple(loss) for loss in entry.get("losses", ())} | set(losses)
            if known:
                entry["losses"] = [list(loss) for loss in sorted(known)]

    def note_columns(self, number: int, columns: Sequence[EventColumn]) -> Epoch:
        """Note columns of the events of an epoch (`with_columns`); the epoch with them.

        Raises:
            EventColumnError: one is another in the log already.
            LogBusyError: there is something to note, and another process writes to this log.
        """
        epochs = self.epochs()
        epoch = with_columns(epochs[number - 1], columns, epochs, self._epochs_path)
        if epoch != epochs[number - 1]:
            with self._amended(number) as entry:
                epochs = self.epochs()
                epoch = with_columns(epochs[number - 1], columns, epochs, self._epochs_path)
                entry.update(epoch_to_json(epoch))
        return epoch

    @contextmanager
    def _amended(self, number: int) -> Iterator[dict[str, Any]]:
        """The entry of an epoch, written when the block has changed it."""
        with self.locked():
            document = self._document()
            before = json.dumps(document)
            yield document["epochs"][number - 1]
            if json.dumps(document) != before:
                write_json_atomically(self._epochs_path, document)

    def publish(self, epoch: Epoch | None, manifest: Mapping[str, Any]) -> Path:
        """Make the files durable, write their manifest, then `epochs.json` with it and `epoch`.

        Call within `locked`. `epoch` is the next one, or the same as a published one with larger
        `last_offsets`; None for files that belong to no epoch (impressions).

        Raises:
            EpochHandOverError: it is neither.
        """
        document = self._document()
        entries = document["epochs"]
        if epoch is None:
            pass
        elif epoch.number == len(entries) + 1:
            check_new_epoch(epoch, self.epochs(), self._epochs_path)
            entries.append(epoch_to_json(epoch))
        else:
            check_grown_epoch(epoch, self.epochs(), self._epochs_path)
            # What was noted of the epoch meanwhile stays.
            entries[epoch.number - 1] |= {"last_offsets": epoch_to_json(epoch)["last_offsets"]}
        kind = str(manifest["name"]) if epoch is None else epoch.name
        name = f"{len(document['manifests']) + 1:06d}-{kind}.json"
        path = self.root / "manifests" / name
        self._sync([str(entry["path"]) for entry in manifest["files"]])
        write_json_atomically(
            path, {"kind": "event_log", "schema_version": LOG_SCHEMA_VERSION, **manifest}
        )
        document["manifests"].append(name)
        write_json_atomically(self._epochs_path, document)
        return path

    def replace(self, manifests: Mapping[int, Mapping[str, Any]]) -> None:
        """Publish other versions of manifests, by their place; call within `locked`.

        Their files must be written. Those that no manifest names any more are removed.
        """
        document = self._document()
        for number, manifest in manifests.items():
            stem, _, version = document["manifests"][number].removesuffix(".json").partition("@")
            name = f"{stem}@{int(version or 1) + 1}.json"
            self._sync([str(entry["path"]) for entry in manifest["files"]])
            write_json_atomically(self.root / "manifests" / name, manifest)
            document["manifests"][number] = name
        write_json_atomically(self._epochs_path, document)
        self.remove_unpublished()

    def _sync(self, paths: Sequence[str]) -> None:
        """Bring files and the folders that name them to disk, each folder once."""
        folders: set[Path] = set()
        for path in paths:
            sync_file(self.root / path)
            folders.update(self.root / parent for parent in Path(path).parents)
        for folder in sorted(folders):
            sync_directory(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer of this log.

        Raises:
            LogBusyError: another process is.
        """
        msg = f"{self.root}: another process writes to this log; wait for it to end"
        with only_writer(self.root / ".lock", LogBusyError(msg)):
            yield

    def remove_unpublished(self) -> None:
        """Delete what a killed writer left behind; call within `locked`."""
        named = {f"manifests/{name}" for name in self._document()["manifests"]}
        for manifest in self.manifests():
            named |= {entry["path"] for entry in manifest["files"]}
        for folder in (*_TABLES, "manifests", "spool"):
            for path in sorted((self.root / folder).rglob("*"), reverse=True):
                if path.is_dir():
                    if not any(path.iterdir()):
                        path.rmdir()
                elif path.relative_to(self.root).as_posix() not in named:
                    path.unlink()
        spool = self.root / "spool"
        if spool.exists():
            spool.rmdir()

    @property
    def _epochs_path(self) -> Path:
        return self.root / EPOCHS_NAME

    def _document(self) -> dict[str, Any]:
        if not self._epochs_path.exists():
            return {"schema_version": LOG_SCHEMA_VERSION, "epochs": [], "manifests": []}
        document = read_json(self._epochs_path)
        check_version(document, self._epochs_path)
        for key in ("epochs", "manifests"):
            if not isinstance(document.get(key), list):
                msg = f"{self._epochs_path}: {key} is no list; restore the file from a backup"
                raise ManifestError(msg)
        return document

    def _files(self, table: str, first: date | None, last: date | None) -> list[LogFile]:
        files = []
        for manifest in self.manifests():
            for entry in manifest["files"]:
                if entry["table"] != table:
                    continue
                day = date.fromisoformat(entry["dt"])
                if (first is None or day >= first) and (last is None or day <= last):
                    path = self._checked(entry)
                    files.append(
                        LogFile(path, day, entry["rows"], entry["bytes"], manifest["epoch"])
                    )
        return sorted(files, key=lambda file: (file.dt, file.epoch or 0, file.path))

    def _newest(self, table: str) -> Path | None:
        for manifest in reversed(self.manifests()):
            for entry in manifest["files"]:
                if entry["table"] == table:
                    return self._checked(entry)
        return None

    def _checked(self, entry: Mapping[str, Any]) -> Path:
        path = self.root / str(entry["path"])
        size = path.stat().st_size if path.exists() else None
        if size != entry["bytes"]:
            state = "missing" if size is None else f"{size} bytes"
            msg = f"{path}: {state}, its manifest says {entry['bytes']} bytes; import again"
            raise ManifestError(msg)
        return path


def open_log(root: Path, time_zone: str, failure: type[BadInputError]) -> EventLog:
    """A log whose days are those of `time_zone`.

    Raises:
        BadInputError: of the class `failure`: the log is empty, or its days are of another zone.
    """
    log = EventLog(root)
    zone = log.time_zone()
    if zone is None:
        msg = f"{root}: no event log; run `uic import` or `uic simulate` first"
        raise failure(msg)
    if zone != time_zone:
        msg = (
            f"{root}: its days are of time_zone {zone}, the configuration says {time_zone}; "
            f"set time_zone: {zone}, or import again"
        )
        raise failure(msg)
    return log


def range_of_days(files: Sequence[LogFile]) -> str:
    """The days that have rows in `files`, as half a sentence about the log."""
    days = sorted({file.dt for file in files if file.rows})
    return f"it has them from {days[0]} to {days[-1]}" if days else "it has none at all"
