"""A directory is published whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from uic.models.errors import ManifestError
from uic.models.published import (
    MANIFEST_NAME,
    file_entry,
    make_directory,
    publish_manifest,
    read_manifest,
    verify_checksums,
)


def published(root, text="first", name="a.txt"):
    root.mkdir(exist_ok=True)
    (root / name).write_text(text)
    manifest = {
        "kind": "toy",
        "schema_version": 1,
        "files": [file_entry(root, root / name, rows=1)],
    }
    publish_manifest(root, manifest)
    return manifest


def test_what_was_published_is_read_back(tmp_path):
    assert published(tmp_path / "out") == read_manifest(tmp_path / "out", "toy", 1)


def test_a_directory_without_manifest_was_never_published(tmp_path):
    (tmp_path / "half.parquet").write_text("half")
    with pytest.raises(ManifestError, match="never published"):
        read_manifest(tmp_path, "toy", 1)


def test_leftovers_of_an_earlier_attempt_go_with_the_next_publication(tmp_path):
    root = tmp_path / "out"
    published(root)
    (root / "dt=2020-01-01").mkdir()
    (root / "dt=2020-01-01" / "killed.parquet").write_text("half")
    published(root, "second", "b.txt")
    assert sorted(path.name for path in root.iterdir()) == ["b.txt", MANIFEST_NAME]


def test_a_file_that_is_missing_is_named(tmp_path):
    published(tmp_path / "out")
    (tmp_path / "out" / "a.txt").unlink()
    with pytest.raises(ManifestError, match=r"a\.txt: missing"):
        read_manifest(tmp_path / "out", "toy", 1)


def test_a_changed_byte_is_found_by_the_checksum(tmp_path):
    manifest = published(tmp_path / "out", "first")
    (tmp_path / "out" / "a.txt").write_text("fIrst")
    with pytest.raises(ManifestError, match=r"a\.txt: sha256"):
        verify_checksums(tmp_path / "out", manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "kind is 'other', expected 'toy'"),
        ({"schema_version": 2}, "schema_version is 2, this code reads 1"),
    ],
)
def test_another_kind_or_version_is_refused(tmp_path, change, message):
    manifest = published(tmp_path / "out") | change
    (tmp_path / "out" / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "out", "toy", 1)


def test_a_manifest_that_is_not_json_is_refused(tmp_path):
    (tmp_path / MANIFEST_NAME).write_text('{"kind": "to')
    with pytest.raises(ManifestError, match="not JSON"):
        read_manifest(tmp_path, "toy", 1)


def test_what_is_published_survives_a_power_cut(tmp_path, monkeypatch):
    """Contents are synced, and every folder that has a new name in it."""
    synced = []
    to_disk = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda file: (synced.append(str(Path(f"/proc/self/fd/{file}").readlink())), to_disk(file)),
    )
    root = tmp_path / "new" / "newer" / "out"
    make_directory(root / "part")
    (root / "part" / "a.txt").write_text("a")
    entry = file_entry(root, root / "part" / "a.txt", rows=1)
    publish_manifest(root, {"kind": "toy", "schema_version": 1, "files": [entry]})
    folders = (tmp_path, tmp_path / "new", tmp_path / "new" / "newer", root, root / "part")
    assert set(synced) >= {str(path) for path in (*folders, root / "part" / "a.txt")}
    assert synced[-1] == str(root)  # its manifest's name comes last
