"""Which images there are to extract, and which item shows which.

A folder holds images, directly or in class folders; a file whose whole name is a number (`42.jpg`)
is the image of that item. A manifest (CSV or Parquet with `item_id, path`) names items; its paths
are relative to its own folder, or to another one that is given. Of a log with text ids, a file is
named by the text of an item that the log has, and a manifest has texts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.pipelines.log.events import MAX_ID
from uic.pipelines.log.text_ids import TextIds

_MANIFEST_SUFFIXES: Final = (".csv", ".parquet")
# What lies beside images and is none, and is not worth a line in the list of rejects.
_OTHER_FILES: Final = (".txt", ".md", ".json", ".csv", ".parquet", ".html", ".yaml", ".yml")


class ImageSourceListError(BadInputError):
    """A folder or a manifest of images cannot be read."""


@dataclass(frozen=True)
class SourceImage:
    """One image to extract.

    Args:
        path: relative to the source's folder, or absolute; as it was named.
        item_id: that shows it; None if none is known.
        label: name of its class folder; None if it is in none.
    """

    path: str
    item_id: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class ImageSource:
    """Images, and the folder that they must not leave."""

    folder: Path
    images: tuple[SourceImage, ...]

    @classmethod
    def open(
        cls, source: Path, root: Path | None = None, ids: TextIds | None = None
    ) -> "ImageSource":
        """List a folder, or read a manifest.

        Args:
            source: a folder, or a manifest.
            root: folder that a manifest's paths are relative to; None for its own.
            ids: of the log whose items are named; None for numbers.

        Raises:
            ImageSourceListError: neither, not readable, or without the columns.
        """
        texts = ids if ids is not None and ids.are_texts("item") else None
        if source.is_dir():
            return cls(source.resolve(), tuple(_listed(source, texts)))
        if source.suffix.lower() not in _MANIFEST_SUFFIXES or not source.is_file():
            fault = "no such file" if not source.exists() else "neither"
            msg = f"{source}: {fault}; expected a folder of images, or a .csv or .parquet manifest"
            raise ImageSourceListError(msg)
        folder = (root or source.parent).resolve()
        if not folder.is_dir():
            msg = f"{folder}: no such folder; --root must be the folder that the paths start from"
            raise ImageSourceListError(msg)
        table = _manifest(source, pa.string() if texts else pa.int64())
        items, paths = table["item_id"].to_pylist(), table["path"].to_pylist()
        if texts:
            items = [texts.number("item", item) for item in items]
        pairs = zip(items, paths, strict=True)
        return cls(folder, tuple(SourceImage(path, item) for item, path in pairs))


def _listed(folder: Path, texts: TextIds | None) -> Iterator[SourceImage]:
    paths = list(_paths(folder))
    items = dict(_numbered(paths)) if texts is None else _named(paths, texts)
    for path in paths:
        relative = path.relative_to(folder)
        label = relative.parts[-2] if len(relative.parts) > 1 else None
        yield SourceImage(relative.as_posix(), items.get(path.stem), label)


def _numbered(paths: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """Names that are numbers, with them."""
    for path in paths:
        if path.stem.isascii() and path.stem.isdecimal() and int(path.stem) <= MAX_ID:
            yield path.stem, int(path.stem)


def _named(paths: Iterable[Path], texts: TextIds) -> dict[str, int]:
    """Names that are texts of items in the log, with their numbers."""
    numbers = {path.stem: texts.number("item", path.stem) for path in paths}
    there = texts.pairs("item", numbers.values())
    return {stem: number for stem, number in numbers.items() if there.get(number) == stem}


def _paths(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.suffix.lower() in _OTHER_FILES or path.name.startswith("."):
            continue
        if not path.suffix and path.stem.isupper():  # LICENSE, README
            continue
        yield path


def _manifest(path: Path, id_type: pa.DataType) -> pa.Table:
    """`item_id` and `path` text, without nulls."""
    columns = {"item_id": id_type, "path": pa.string()}
    try:
        if path.suffix.lower() == ".csv":
            table = pacsv.read_csv(
                path,
                convert_options=pacsv.ConvertOptions(
                    column_types=columns, include_columns=list(columns)
                ),
            )
        else:
            table = pq.read_table(path, columns=list(columns)).cast(pa.schema(columns.items()))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        msg = f"{path}: cannot be read as item_id ({id_type}), path (text): {reason}"
        raise ImageSourceListError(msg) from error
    for name in columns:
        if table[name].null_count:
            msg = f"{path}: {name} is empty in {table[name].null_count} rows; name an item and path"
            raise ImageSourceListError(msg)
    return table
