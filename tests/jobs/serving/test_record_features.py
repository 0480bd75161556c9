"""What a record's parts say is one thing: in samples, as of a moment, and when a model serves."""

import json
import shutil
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.feature_repo.snapshots.published_values import values_of
from uic.jobs.config.config import Config
from uic.jobs.serving.http.feature_log import SERVED, FeatureLog
from uic.jobs.serving.http.service import ages_of_an_old_log
from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.items import ItemCache, ItemTable
from uic.jobs.serving.score.memories import MemoryScorer, MemoryScorers
from uic.jobs.serving.score.state import RecordFeatures
from uic.jobs.workspace.workspace import Workspace
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import ManifestError
from uic.models.features.definition import Owner
from uic.models.features.fitted import FittedFeatures
from uic.models.records.record import parts_view
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.pipelines.audit.memories import AuditRequest
from uic.pipelines.audit.served import audit_served
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.settings import SaleSettings

FIRST, LAST = date(2025, 1, 6), date(2025, 1, 9)
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A simulated log, samples with the features of a state, and a trained MIMN."""
    made = Workspace(tmp_path_factory.mktemp("record") / "var")
    made.simulate(users=60, days=10, items=300, seed=3)
    made.state.init()
    made.samples(FIRST, LAST, gates=False)
    made.train("mimn", epochs=1, test_days=1, version="state")
    return made


def groups_of(workspace: Workspace):
    reader = SamplesReader(workspace.context.samples / "default")
    return reader, list(reader.batches(BatchPlan(4096)))


def sampled_and_asked(workspace: Workspace, folder, **options):
    """Features of all samples, (rows, features), and what `asof` says of the same rows."""
    reader, batches = groups_of(workspace)
    names = [one.name for one in workspace.state.read().described]
    assert [named.name for named in reader.features.of(Owner.STATE)] == names
    rows, told = [], []
    for batch in batches:
        owner = batch.impression_groups
        rows.append((batch.user_ids[owner], batch.event_times_ms, batch.item_ids))
        told.append(np.stack([batch.features[f"state.{name}"] for name in names], axis=1))
    users, times, items = (np.concatenate(column) for column in zip(*rows, strict=True))
    asked, out = folder / "rows.parquet", folder / "out.parquet"
    pq.write_table(
        pa.table({"user_id": users, "time": pa.array(times, pa.timestamp("ms")), "item_id": items}),
        asked,
    )
    found = workspace.state.as_of(asked, out, **options)
    assert found.rows == len(users) > 100
    written = pq.read_table(out)
    expected = np.stack([written.column(name).to_numpy() for name in names], axis=1)
    assert np.count_nonzero(np.nan_to_num(expected)) > 100
    return np.concatenate(told), expected


def test_samples_say_what_the_log_says_as_of_each_impression(workspace, tmp_path) -> None:
    told, expected = sampled_and_asked(workspace, tmp_path)
    np.testing.assert_array_equal(told, expected)


def test_samples_and_asof_leave_out_the_same_sale_days(tmp_path) -> None:
    sale = tmp_path / "sale.yaml"
    days = [date(2025, 1, 3), date(2025, 1, 7)]
    sale.write_text(SaleCalendar.of_days(tuple(days), "UTC").to_yaml())
    made = Workspace(tmp_path / "var", Config(sale=SaleSettings(calendar=sale)))
    made.simulate(users=40, days=10, items=300, seed=4)
    made.state.init()
    made.samples(FIRST, LAST, gates=False)
    told, expected = sampled_and_asked(made, tmp_path)
    np.testing.assert_array_equal(told, expected)
    _, kept = sampled_and_asked(made, tmp_path, keep_sale_days=True)
    assert (told != kept).any()


def test_a_log_that_ended_long_ago_is_named_where_a_bundle_reads_ages(workspace, tmp_path) -> None:
    log = EventLog(workspace.context.log)
    bundle = load_bundle(workspace.context.bundles / "mimn" / "state")
    said = ages_of_an_old_log(bundle, log, date(2025, 3, 1))
    assert said.startswith("the log ends on 2025-01-10, 50 days ago: ages")
    assert "moment_ms" in said
    assert ages_of_an_old_log(bundle, log, date(2025, 2, 1)) == ""
    without = replace(bundle, vocabulary=replace(bundle.vocabulary, features=FittedFeatures()))
    assert ages_of_an_old_log(without, log, date(2025, 3, 1)) == ""
    assert ages_of_an_old_log(bundle, EventLog(workspace.path / "none"), date(2025, 3, 1)) == ""
    without_days = EventLog(tmp_path / "log")
    shutil.copytree(log.root, without_days.root, ignore=shutil.ignore_patterns("behaviors"))
    with pytest.raises(ManifestError, match="missing"):
        without_days.behavior_files()
    assert ages_of_an_old_log(bundle, without_days, date(2025, 3, 1)) == said


def test_a_served_record_says_what_the_log_says(workspace, tmp_path) -> None:
    snapshot = workspace.build_memories("mimn/state", "2025-01-10")
    bundle = load_bundle(workspace.context.bundles / "mimn" / "state")
    table = pq.read_table(snapshot.path / snapshot.manifest["files"][0]["path"])
    users = table.column("user_id").to_numpy()[:20]
    width = int(snapshot.manifest["record_bytes"])
    records = values_of(table.column("memory").chunk(0), width, "test")[:20]
    assert parts_view(records, bundle.state.bytes).any()
    item_table = ItemTable.load(EventLog(workspace.context.log).items_file())
    items = item_table.item_ids[:7].tolist()
    moment = int(np.datetime64("2025-01-12T03:04:05.678", "ms").astype(np.int64))
    asks = [
        Ask(items, record.tobytes(), moment_ms=moment, user_id=int(user))
        for user, record in zip(users, records, strict=True)
    ]
    categories = np.tile(item_table.categories(np.array(items))[0], len(asks))
    served = RecordFeatures(bundle, item_table).of(asks, records, categories)
    asked, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    columns = {
        "user_id": np.repeat(users, len(items)),
        "time": np.full(len(users) * len(items), moment),
        "item_id": np.tile(items, len(users)),
    }
    pq.write_table(pa.table(columns), asked)
    workspace.state.as_of(asked, out)
    for key, values in served.items():
        expected = pq.read_table(out).column(key.removeprefix("state.")).to_numpy()
        np.testing.assert_array_equal(values, expected)
    # The scorer puts them before the head: another moment, other scores; no record, a new user's.
    served_features = ServedFeatures(bundle, item_table.features)
    scorer = MemoryScorer(bundle, ItemCache(item_table, bundle.embed, 100, served_features))
    now = scorer.answer_now(asks)
    later = scorer.answer_now([Ask(items, asks[0].record, moment_ms=moment + 60 * DAY_MS)])
    new = scorer.answer_now([Ask(items, None, moment_ms=moment)])
    assert not np.array_equal(now[0].logits, later[0].logits)
    assert not np.array_equal(now[0].logits, new[0].logits)
    logged = now[3].features
    assert logged.moment_ms == moment
    key = "state.items.count"
    np.testing.assert_array_equal(logged.context[key], served[key][21:28])


def test_the_audit_of_answers_finds_a_feature_that_the_record_did_not_say(
    workspace, tmp_path
) -> None:
    snapshot = workspace.build_memories("mimn/state", "2025-01-10")
    bundle = load_bundle(workspace.context.bundles / "mimn" / "state")
    table = pq.read_table(snapshot.path / snapshot.manifest["files"][0]["path"]).slice(0, 6)
    items = ItemTable.load(EventLog(workspace.context.log).items_file())
    features = ServedFeatures(bundle, items.features)
    scorer = MemoryScorer(bundle, ItemCache(items, bundle.embed, 100, features))
    log = FeatureLog(tmp_path / "served", 1.0, lambda _rows: None)
    shown, scorers = items.item_ids[:5].tolist(), MemoryScorers(scorer)
    for user, record in zip(*(column.to_pylist() for column in table.columns[::2]), strict=True):
        [scored] = scorer.answer_now([Ask(shown, record, user_id=user)])
        facts = scorers.facts(record)
        log.add(user, RankedCandidates(shown, scored, facts, None, (), record), None)
    log.close()
    context = workspace.context
    request = AuditRequest(
        context.log, context.memories, context.bundles, tmp_path / "scratch", AuditSettings()
    )
    audit = audit_served(request, tmp_path / "served")
    assert (audit.matched, audit.scored, audit.parts, audit.parts_differing) == (6, 30, 6, 0)
    assert audit.mismatches == 0
    [path] = (tmp_path / "served").glob("*/*.parquet")
    rows = pq.read_table(path).to_pylist()
    told = json.loads(rows[2]["features"])
    told["state.items.distinct"][1] += 1
    rows[2]["features"] = json.dumps(told)
    pq.write_table(pa.Table.from_pylist(rows, SERVED), path)
    audit = audit_served(request, tmp_path / "served")
    assert (audit.differing, audit.parts_differing, audit.mismatches) == (0, 1, 1)
    rows[2]["moment"] += timedelta(days=400)
    pq.write_table(pa.Table.from_pylist(rows, SERVED), path)
    assert audit_served(request, tmp_path / "served").largest_difference > 1e-4
