"""Features in samples are those that held just before each impression: against `merge_asof`."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.pipelines.samples.small_run import DAY, ORIGIN, random_tables, request_for
from uic.models.features.dated import FeatureTableError
from uic.models.features.feature_file import load_features
from uic.models.features.raw import MISSING, FeatureValueError, category_of
from uic.models.published import MANIFEST_NAME
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.run import run_import
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.features import FeatureJoin
from uic.pipelines.samples.run import SamplesRequest, make_samples
from uic.pipelines.settings import SaleSettings, SamplesSettings

FILE = """\
version: 1
sources:
  user: {file: users.parquet, id: who, valid_from: since}
  item: {file: items.parquet, id: item_id, valid_from: since}
user:
  band: {type: categorical}
  clicks: {type: number, default: -1}
item:
  price: {type: number, scale: log}
  tags: {type: categories, most: 3}
context:
  tab: {type: categorical}
  place: {type: number}
"""


def changes(draw, ids, rows, name):
    """A table of changes: some ids have none, some many, some at the very time of impressions."""
    table = pd.DataFrame(
        {
            name: draw.choice(ids, rows),
            "since": pd.to_datetime(ORIGIN + draw.integers(-DAY, 3 * DAY, rows), unit="ms"),
        }
    )
    return table.drop_duplicates().reset_index(drop=True)


def as_of(shown, table, key, columns):
    """By pandas, as another tool would: the last row strictly before."""
    merged = pd.merge_asof(
        shown.sort_values("time", kind="stable"),
        table.sort_values("since", kind="stable"),
        left_on="time",
        right_on="since",
        left_by=key,
        right_by=table.columns[0],
        allow_exact_matches=False,
    )
    return merged.set_index("row").loc[shown["row"], columns]


@pytest.fixture
def log(tmp_path):
    draw = np.random.default_rng(5)
    behaviors, impressions = random_tables()
    rows = impressions.num_rows
    impressions = impressions.append_column("tab", pa.array(draw.choice(["a", "b", None], rows)))
    log = EventLog(tmp_path / "log")
    with LogWriter(log, Part("all"), time_zone="UTC", partitions=2) as writer:
        writer.add_behaviors(behaviors)
        writer.add_impressions(impressions)
        writer.publish()
    # Of another night, whose impressions have another column.
    later = random_tables(seed=8)[1]
    later = later.append_column("place", pa.array(np.arange(later.num_rows)))
    with LogWriter(log, Part("more"), time_zone="UTC", impressions_only=True) as writer:
        writer.add_impressions(later)
        writer.publish()
    times = [*impressions["event_time"].cast(pa.int64()).to_pylist()[:50]]
    users = changes(draw, np.arange(60), 300, "who")
    users.loc[: len(times) - 1, "who"] = impressions["user_id"].to_pylist()[:50]
    users.loc[: len(times) - 1, "since"] = pd.to_datetime(times, unit="ms")  # not seen at that time
    users = users.drop_duplicates(["who", "since"]).reset_index(drop=True)
    users["band"] = draw.choice(["young", "old"], len(users))
    users["clicks"] = np.arange(len(users), dtype=float)
    items = changes(draw, np.arange(500), 2000, "item_id")
    items["price"] = draw.exponential(size=len(items))
    items["tags"] = [["x"] * (at % 5) for at in range(len(items))]
    for name, table in (("users", users), ("items", items)):
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False), tmp_path / f"{name}.parquet"
        )
    (tmp_path / "features.yaml").write_text(FILE)
    return log, users, items


def join_of(folder):
    return FeatureJoin(load_features(folder / "features.yaml"))


def shown_of(batch):
    """A batch's impressions as a table."""
    return pd.DataFrame(
        {
            "row": np.arange(batch.impressions),
            "user": batch.user_ids[batch.impression_groups],
            "item": batch.item_ids,
            "time": pd.to_datetime(batch.event_times_ms, unit="ms"),
        }
    )


def test_every_impression_has_what_held_just_before_it(log, tmp_path):
    event_log, users, items = log
    request = replace(request_for(event_log, buckets=3), features=join_of(tmp_path))
    manifest = make_samples(request)
    (batch,) = SamplesReader(request.output).batches(
        BatchPlan(shuffle=False, batch_impressions=10**6)
    )
    shown = shown_of(batch)
    expected = as_of(shown, users, "user", ["band", "clicks"])
    bands = [MISSING if pd.isna(word) else category_of(word) for word in expected["band"]]
    assert batch.features["user.band"].tolist() == bands
    np.testing.assert_array_equal(
        batch.features["user.clicks"], expected["clicks"].fillna(-1).astype("f4")
    )
    assert expected["clicks"].isna().sum() > 20
    assert expected["clicks"].notna().sum() > 200
    expected = as_of(shown, items, "item", ["price", "tags"])
    np.testing.assert_array_equal(batch.features["item.price"], expected["price"].astype("f4"))
    counts = [
        0 if not isinstance(tags, list | np.ndarray) else min(len(tags), 3)
        for tags in expected["tags"]
    ]
    assert (batch.features["item.tags"] != MISSING).sum(axis=1).tolist() == counts
    assert (batch.features["context.tab"] != MISSING).sum() > 300
    assert set(batch.features["context.tab"]) == {MISSING, category_of("a"), category_of("b")}
    assert np.isfinite(batch.features["context.place"]).sum() == 900
    known = np.isfinite(batch.features["item.price"]).mean()
    assert manifest["feature_coverage"]["item.price"] == pytest.approx(known, abs=1e-6)
    band = (batch.features["user.band"] != MISSING).mean()
    assert manifest["feature_coverage"]["user.band"] == pytest.approx(band, abs=1e-6)


def test_a_users_features_are_stored_once_a_version(log, tmp_path):
    event_log, _, _ = log
    request = replace(request_for(event_log), features=join_of(tmp_path))
    manifest = make_samples(request)
    files = [request.output / entry["path"] for entry in manifest["files"]]
    table = ds.dataset(files).to_table()
    versions = pa.compute.list_value_length(table["user.band"]).to_numpy()
    impressions = pa.compute.list_value_length(table["item_ids"]).to_numpy()
    assert (versions <= impressions).all()
    assert versions.sum() < impressions.sum()
    assert (versions > 1).any()  # somebody changed between two impressions of a day


def test_buckets_and_order_of_files_change_nothing(log, tmp_path):
    event_log, _, _ = log
    found = []
    for name, buckets in (("one", 1), ("five", 5)):
        request = replace(request_for(event_log, name, buckets=buckets), features=join_of(tmp_path))
        make_samples(request)
        parts = SamplesReader(request.output).batches(BatchPlan(shuffle=False))
        table = pd.concat(
            [
                shown_of(batch).assign(
                    **{key: list(values) for key, values in batch.features.items()}
                )
                for batch in parts
            ]
        )
        found.append(
            table.drop(columns="row").sort_values(["time", "user", "item"]).reset_index(drop=True)
        )
    assert found[0].map(str).equals(found[1].map(str))


def test_what_comes_to_hold_at_the_impression_or_later_changes_nothing(log, tmp_path):
    """A feature of the future, such as the label itself, is not seen."""
    event_log, users, _ = log
    request = replace(request_for(event_log, "before"), features=join_of(tmp_path))
    make_samples(request)
    (before,) = SamplesReader(request.output).batches(BatchPlan(batch_impressions=10**6))
    shown = shown_of(before)
    leak = shown.drop_duplicates(["user", "time"])
    told = pd.DataFrame({"who": leak["user"], "since": leak["time"], "band": "leak", "clicks": 1e6})
    # Only where nothing later of the user could see it.
    last = shown.groupby("user")["time"].max()
    told = told[told["since"] == told["who"].map(last)]
    table = pd.concat([users, told]).drop_duplicates(["who", "since"], keep="first")
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), tmp_path / "users.parquet")
    request = replace(request_for(event_log, "after"), features=join_of(tmp_path))
    make_samples(request)
    (after,) = SamplesReader(request.output).batches(BatchPlan(batch_impressions=10**6))
    for key in before.features:
        np.testing.assert_array_equal(before.features[key], after.features[key])


def test_a_table_that_was_written_anew_is_read_anew(log, tmp_path):
    event_log, users, _ = log
    found = []
    for name, clicks in (("first", 1.0), ("second", 2.0)):
        table = pa.Table.from_pandas(users.assign(clicks=clicks), preserve_index=False)
        pq.write_table(table, tmp_path / "users.parquet")
        request = replace(request_for(event_log, name), features=join_of(tmp_path))
        make_samples(request)
        (batch,) = SamplesReader(request.output).batches(BatchPlan(batch_impressions=10**6))
        found.append(set(batch.features["user.clicks"].tolist()))
    assert found == [{-1.0, 1.0}, {-1.0, 2.0}]


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (("id: who", "id: nobody"), FeatureTableError, "column nobody is missing"),
        (
            ("clicks: {type: number", "band2: {column: band, type: number"),
            FeatureValueError,
            "band is",
        ),
        (("tab: {type: categorical}", "tab: {type: number}"), FeatureValueError, "tab is"),
        (("file: users.parquet", "file: gone.parquet"), FeatureTableError, "no such file"),
    ],
)
def test_a_wrong_table_stops_the_run_and_publishes_nothing(log, tmp_path, change, kind, says):
    event_log, _, _ = log
    (tmp_path / "features.yaml").write_text(FILE.replace(*change))
    request = replace(request_for(event_log), features=join_of(tmp_path))
    with pytest.raises(kind, match=says):
        make_samples(request)
    assert not (request.output / MANIFEST_NAME).exists()


@pytest.mark.slow
def test_all_of_kuairand_is_joined_as_pandas_joins_it(shared_data, tmp_path):
    """Clicks of each user so far, known from the next midnight on, on every impression."""
    log = EventLog(tmp_path / "log")
    run_import(
        KuaiRand(shared_data / "kuairand_pure_14d"), log, time_zone="Asia/Shanghai", partitions=4
    )
    raw = pd.read_parquet(shared_data / "kuairand_pure_14d" / "impressions.parquet")
    times = pd.to_datetime(raw["time_ms"], unit="ms")
    daily = raw.assign(since=times.dt.ceil("D")).groupby(["user_id", "since"])["is_click"].sum()
    users = daily.groupby("user_id").cumsum().rename("clicks").reset_index()
    users = users.rename(columns={"user_id": "who"})
    pq.write_table(pa.Table.from_pandas(users, preserve_index=False), tmp_path / "users.parquet")
    (tmp_path / "features.yaml").write_text(
        "version: 1\n"
        "sources: {user: {file: users.parquet, id: who, valid_from: since}}\n"
        "user: {clicks: {type: number}}\n"
        "context: {tab: {type: categorical}, duration: {type: number, column: duration_ms}}\n"
    )
    days = sorted({file.dt for file in log.impression_files()})
    request = SamplesRequest(
        log.root,
        tmp_path / "samples",
        days[0],
        days[-1],
        "Asia/Shanghai",
        SamplesSettings(buckets=3, window_days=1),
        SaleSettings(),
        features=join_of(tmp_path),
    )
    make_samples(request)
    rows = 0
    for batch in SamplesReader(request.output).batches(
        BatchPlan(shuffle=False, batch_impressions=50_000)
    ):
        shown = shown_of(batch)
        expected = as_of(shown, users, "user", ["clicks"])
        np.testing.assert_array_equal(
            batch.features["user.clicks"], expected["clicks"].astype("f4")
        )
        assert (batch.features["context.tab"] != MISSING).all()
        assert np.isfinite(batch.features["context.duration"]).mean() > 0.9
        rows += batch.impressions
    assert rows == 228_329
