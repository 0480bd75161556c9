"""The ledger of files: what each image file was when it was last read, and what came of it.

It is kept beside the features, so that a file that has not changed is not even read again, and
rejects are listed with their reasons.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from uic.models.images.features import ImageFeatures, parts_of
from uic.pipelines.images.decode import ImageFault

FILES_ROLE: Final = "files"
FILES_KEYS: Final = ("folder", "path")
# `sha256` is null if the bytes could not be read, `reason` if the image has features.
FILES: Final = pa.schema(
    [
        pa.field("folder", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("modified_ns", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class FileLine:
    """One line of the ledger.

    Args:
        path: as the source named it.
        bytes, modified_ns: of the file when it was read; -1 if it was not.
        sha256: of its content; None if it was not read.
        reason: why it has no features; None if it has.
        detail: more on the reason.
    """

    path: str
    bytes: int = -1
    modified_ns: int = -1
    sha256: str | None = None
    reason: str | None = None
    detail: str | None = None

    def rejected(self, reason: str, detail: str) -> "FileLine":
        """The same file with a reason."""
        return FileLine(self.path, self.bytes, self.modified_ns, self.sha256, reason, detail)


@dataclass(frozen=True)
class Ledger:
    """All lines: folder -> path -> line."""

    lines: Mapping[str, Mapping[str, FileLine]]

    @classmethod
    def of(cls, features: ImageFeatures | None) -> "Ledger":
        """What was kept beside features, of a file the last line; empty for none."""
        lines: dict[str, dict[str, FileLine]] = {}
        for part in [] if features is None else parts_of(features.manifest):
            if features is None or FILES_ROLE not in part:
                continue
            for row in pq.read_table(features.path / part[FILES_ROLE], schema=FILES).to_pylist():
                folder = row.pop("folder")
                lines.setdefault(folder, {})[row["path"]] = FileLine(**row)
        return cls(lines)

    def newer(self, folder: Path, lines: Iterable[FileLine]) -> "Ledger":
        """Of a folder's lines those that are not here yet, alone."""
        known = self.of_folder(folder)
        new = {line.path: line for line in lines}
        return Ledger({str(folder): {at: new[at] for at in new if new[at] != known.get(at)}})

    def of_folder(self, folder: Path) -> Mapping[str, FileLine]:
        """The lines of one folder, by path."""
        return self.lines.get(str(folder), {})

    def bad_contents(self) -> dict[str, tuple[str, str]]:
        """Contents that were read and could not be decoded: sha256 -> reason, detail."""
        return {
            line.sha256: (line.reason or "", line.detail or "")
            for lines in self.lines.values()
            for line in lines.values()
            if line.sha256 is not None and line.reason not in {None, ImageFault.ITEM_TWICE}
        }

    def table(self) -> pa.Table:
        """`FILES`, by folder and path."""
        rows = [
            {"folder": folder, **vars(lines[path])}
            for folder, lines in sorted(self.lines.items())
            for path in sorted(lines)
        ]
        return pa.Table.from_pylist(rows, schema=FILES)
