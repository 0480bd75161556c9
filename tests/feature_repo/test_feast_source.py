"""A feature view of a site's own Feast repository as a source of `features.yaml`."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Int64, String

from uic.feature_repo.plugin.feast_source import FeastSourceError, pull_feast_sources
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.tombstones import Tombstones
from uic.models.features.dated import DatedTable, FeatureTableError
from uic.models.features.definition import FeatureSet, Owner
from uic.models.features.feature_file import load_features
from uic.models.features.raw import MISSING, category_of

FILE = """\
version: 1
sources:
  user: {feast: stats, repo: shop_repo}
user:
  band: {type: categorical}
  visits: {type: number, column: visit_count}
"""
STORE = """\
project: shop
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store: null
offline_store: {type: file}
"""


def day(number: int) -> datetime:
    return datetime(2026, 3, number, tzinfo=UTC)


def ms(number: int) -> int:
    return int(day(number).timestamp() * 1000)


@pytest.fixture
def site(tmp_path) -> FeatureSet:
    repo = tmp_path / "shop_repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(STORE)
    rows = pd.DataFrame(
        {
            "customer": [1, 1, 1, 2, 3],
            "at": [day(1), day(5), day(5), day(2), day(3)],
            "made": [day(1), day(6), day(7), day(2), day(3)],  # of the 5th the second one counts
            "band": ["old", "wrong", "young", None, "old"],
            "n": [3, 0, 7, 1, 2],
        }
    )
    rows.to_parquet(repo / "stats.parquet")
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.INT64)
    view = FeatureView(
        name="stats",
        entities=[customer],
        schema=[
            Field(name="customer", dtype=Int64),
            Field(name="band", dtype=String),
            Field(name="visit_count", dtype=Int64),
        ],
        source=FileSource(
            path=str(repo / "stats.parquet"),
            timestamp_field="at",
            created_timestamp_column="made",
            field_mapping={"n": "visit_count"},
        ),
        online=False,
    )
    FeatureStore(repo_path=str(repo)).apply([customer, view])
    (tmp_path / "features.yaml").write_text(FILE)
    return load_features(tmp_path / "features.yaml")


def pull(site: FeatureSet) -> dict[str, int]:
    return pull_feast_sources(site, StoreSettings(), site.folder)


def test_a_feature_view_is_joined_as_a_dated_table(site):
    Tombstones(site.folder).add(3)
    assert pull(site) == {"stats": 3}  # without the one who was forgotten
    source = site.sources.user
    table = DatedTable.read(site.folder / source.file, source, site.of(Owner.USER))
    ids = np.array([1, 1, 1, 2, 2, 3])
    times = np.array([ms(1), ms(1) + 1, ms(5) + 1, ms(2), ms(9), ms(9)])
    rows = table.as_of(ids, times)
    band, visits = (table.take(named, rows) for named in site.of(Owner.USER))
    young, old = category_of("young"), category_of("old")
    assert band.tolist() == [MISSING, old, young, MISSING, MISSING, MISSING]
    np.testing.assert_array_equal(visits, np.array([np.nan, 3, 7, np.nan, 1, np.nan], "f4"))


def test_what_feast_cannot_read_is_one_line(site, tmp_path):
    source = site.sources.user
    with pytest.raises(FeatureTableError, match="`uic features pull` reads feature view stats"):
        DatedTable.read(tmp_path / source.file, source, site.of(Owner.USER))
    path = tmp_path / "features.yaml"
    for was, becomes, says in (
        ("feast: stats", "feast: nothing", "feature view nothing: Feast cannot read it"),
        ("visit_count", "clicks", "stats: has no feature clicks; it has band, visit_count"),
        ("shop_repo", "elsewhere", "feature view stats: Feast cannot read it"),
    ):
        path.write_text(FILE.replace(was, becomes))
        with pytest.raises(FeastSourceError, match=says) as failure:
            pull(load_features(path))
        assert "\n" not in str(failure.value)
    (tmp_path / "shop_repo" / "stats.parquet").unlink()
    with pytest.raises(FeastSourceError, match="feature view stats: Feast cannot read it"):
        pull(site)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{feast: stats, id: customer}", "id follows from feast"),
        ("{file: a.parquet, id: customer, repo: here}", "repo is of feast"),
        ("{feast: ../stats}", "feast: "),
    ],
)
def test_a_source_is_a_table_or_a_view(tmp_path, source, says):
    path = tmp_path / "features.yaml"
    path.write_text(FILE.replace("{feast: stats, repo: shop_repo}", source))
    with pytest.raises(Exception, match=says):
        load_features(path)
