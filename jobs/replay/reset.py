"""`uic replay reset|undo`: back to before the replay, and back to before the day was held back.

Both refuse where no day is held back, and take nothing that is not the replay's: event files that
the replay wrote, what its stream left, the embedded store, and the epochs of its topics. An import
that came after the day was held back is in the way, and is named.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.replay.hold_back import HELD_KIND, HELD_SCHEMA_VERSION, ReplayError
from uic.jobs.stream.topics.event_files import SUFFIX
from uic.models.published import MANIFEST_NAME, read_manifest, write_json_atomically
from uic.pipelines.log.event_log import EPOCHS_NAME, EventLog

_EVENTS = "events"
# What a stream makes in its folder; a user's own file beside it stays.
_STREAM = ("archive", "checkpoints", "dead-letters", "generation=*")
_HELD = ("behaviors", "impressions")


@dataclass(frozen=True)
class ResetPlan:
    """What a reset removes; nothing is removed before `carry_out`.

    Attributes:
        workspace: of the replay.
        event_files: that hold the replayed day, by the names that a replay gives them.
        folders: that the stream made, and the embedded store's data.
        epochs: of the log that go, by name.
    """

    workspace: Path
    event_files: tuple[Path, ...]
    folders: tuple[Path, ...]
    epochs: tuple[str, ...]

    def lines(self) -> list[str]:
        """What goes, for people."""
        lines = []
        if self.event_files:
            lines.append(f"{len(self.event_files)} event files of {self.workspace / _EVENTS}")
        lines += [str(folder) for folder in self.folders]
        return [*lines, *(f"epoch {name} of {self.workspace / 'log'}" for name in self.epochs)]

    def carry_out(self) -> None:
        """Stop the embedded Redis and remove what `lines` says.

        Raises:
            LogBusyError: another process writes to the log.
        """
        EmbeddedRedis(self.workspace / STORE_FOLDER).stop()
        for path in self.event_files:
            path.unlink(missing_ok=True)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        if self.epochs:
            _remove_epochs(EventLog(self.workspace / "log"))


def plan_reset(workspace: Path, held_root: Path) -> ResetPlan:
    """What `uic replay reset` would remove.

    Args:
        workspace: with the log, and with what the replay left.
        held_root: the folder of the held day.

    Raises:
        ReplayError: no day is held back, or the log holds more than the replay added.
    """
    _held_manifest(workspace, held_root)
    epochs = EventLog(workspace / "log").epochs()
    foreign = next((epoch for epoch in epochs[1:] if epoch.kind == "import"), None)
    if foreign is not None:
        msg = (
            f"{workspace / 'log'}: epoch {foreign.number} ({foreign.name}) was imported after the "
            "day was held back and is no part of the replay; a reset would remove it. Replay in a "
            "workspace that has nothing else"
        )
        raise ReplayError(msg)
    folders = [*(path for name in _STREAM for path in sorted((workspace / "stream").glob(name)))]
    folders.append(workspace / STORE_FOLDER)
    return ResetPlan(
        workspace,
        tuple(sorted((workspace / _EVENTS).glob(f"partition=*-*{SUFFIX}"))),
        tuple(folder for folder in folders if folder.is_dir()),
        tuple(f"{epoch.number} ({epoch.name})" for epoch in epochs[1:]),
    )


def undo(workspace: Path, held_root: Path) -> int:
    """Put the held behaviours back into the log; call after a reset. The events that came back.

    1. Link the held files into the log.  2. Write the log's manifest, then `epochs.json`, as they
    were.  3. Remove the shorter manifest, and the held day.

    Raises:
        ReplayError: no day is held back, or the log has epochs of the replay.
        LogBusyError: another process writes to the log.
    """
    held = _held_manifest(workspace, held_root)
    if "log" not in held:
        msg = f"{held_root}: was held back by version 0.1, which kept no way back; import again"
        raise ReplayError(msg)
    log = EventLog(workspace / "log")
    with log.locked():
        if len(log.epochs()) > 1:
            msg = f"{log.root}: has epochs of the replay; `uic replay reset` removes them first"
            raise ReplayError(msg)
        for entry in held["files"]:  # step 1
            target = log.root / entry["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.hardlink_to(held_root / entry["path"])
        now = json.loads((log.root / EPOCHS_NAME).read_text(encoding="utf-8"))
        document = dict(held["log"]["epochs"])  # step 2
        # Impressions that were imported since have no epoch, and stay.
        document["manifests"] = [*document["manifests"][:1], *now["manifests"][1:]]
        write_json_atomically(
            log.root / "manifests" / document["manifests"][0], held["log"]["manifest"]
        )
        write_json_atomically(log.root / EPOCHS_NAME, document)
        log.remove_unpublished()  # step 3
        (held_root / MANIFEST_NAME).unlink()
        for name in _HELD:
            shutil.rmtree(held_root / name, ignore_errors=True)
        if not any(held_root.iterdir()):  # what was measured stays
            held_root.rmdir()
    return sum(int(entry["rows"]) for entry in held["files"])


def _held_manifest(workspace: Path, held_root: Path) -> Mapping[str, Any]:
    if not (held_root / MANIFEST_NAME).is_file():
        msg = f"{workspace}: no day is held back here, so there is no replay to take back"
        raise ReplayError(msg)
    return read_manifest(held_root, HELD_KIND, HELD_SCHEMA_VERSION)


def _remove_epochs(log: EventLog) -> None:
    """Leave the first epoch of a log, the import."""
    with log.locked():
        document = json.loads((log.root / EPOCHS_NAME).read_text(encoding="utf-8"))
        manifests = zip(document["manifests"], log.manifests(), strict=True)
        names = [name for name, manifest in manifests if manifest["epoch"] in (1, None)]
        write_json_atomically(
            log.root / EPOCHS_NAME,
            {**document, "epochs": document["epochs"][:1], "manifests": names},
        )
        log.remove_unpublished()
