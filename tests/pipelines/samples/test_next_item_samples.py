"""From a data set's own rows to samples by the papers' protocol, through the gates, as commands."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.command_line import uic
from uic.models.published import read_manifest
from uic.models.samples.schema import SAMPLES, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION

USERS = 40


@pytest.fixture
def cut(shared_data: Path, tmp_path: Path) -> Path:
    """All rows of the first users of the file."""
    rows = pq.read_table(shared_data / "ali_brand_2013" / "behaviors.parquet")
    users = pc.unique(rows["user_id"])[:USERS]
    path = tmp_path / "behaviors.parquet"
    pq.write_table(rows.filter(pc.is_in(rows["user_id"], value_set=users)), path)
    return path


def test_real_rows_become_a_clicked_and_an_unclicked_impression_a_user(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = ("-w", tmp_path / "work")
    assert uic(monkeypatch, "import", "ali-brand", cut, "--protocol", "next-item", *work) == 0
    shown = sorted((tmp_path / "work" / "log" / "impressions").glob("dt=*"))
    days = [shown[at].name.removeprefix("dt=") for at in (0, -1)]
    assert uic(monkeypatch, "samples", "--first", days[0], "--last", days[1], *work) == 0

    root = tmp_path / "work" / "samples" / "default"
    manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    files = [root / entry["path"] for entry in manifest["files"]]
    groups = ds.dataset(files, schema=SAMPLES).to_table().to_pylist()
    rows = pq.read_table(cut)
    clicks = rows.filter(pc.equal(rows["type"], 0))
    counts = clicks.group_by("user_id").aggregate([("brand_id", "count")])
    long = counts.filter(pc.greater_equal(counts["brand_id_count"], 20))["user_id"].to_pylist()
    assert sorted(group["user_id"] for group in groups) == sorted(long)
    for group in groups:
        assert sorted(group["labels"]) == [False, True]
        clicked = group["item_ids"][group["labels"].index(True)]
        mine = clicks.filter(pc.equal(clicks["user_id"], group["user_id"]))
        last = mine.sort_by([("date", "ascending"), ("row", "ascending")])["brand_id"][-1].as_py()
        assert clicked == last
        negative = group["item_ids"][group["labels"].index(False)]
        assert negative not in mine["brand_id"].to_pylist()
        assert max(group["history_lengths"]) <= 100
    assert (tmp_path / "work" / "reports" / "quality" / "samples-default.html").is_file()
