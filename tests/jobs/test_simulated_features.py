"""Features of the simulator: what they change, and what a model gets out of them.

The log's clicks depend on features alone, so their worth is not mixed with that of histories; the
oracle says what ranking by the true probabilities reaches.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.jobs.workspace.workspace import Workspace
from uic.models.features.definition import Owner
from uic.models.features.feature_file import load_features
from uic.models.features.tables import table_path, write_table
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.simulator import BestAuc, Simulation, SimulationPlan
from uic.pipelines.simulator.features import AGE_BANDS, SEGMENTS, SimulatedFeatures

PLAN = {"users": 1000, "items": 300, "days": 16, "visits_per_user_day": 0.3}
QUICK = {"batch_impressions": 256, "learning_rate": 0.003}


def chunks(**plan):
    simulation = Simulation(SimulationPlan(users=200, items=400, days=4, seed=3, **plan))
    return [chunk for day in range(4) for chunk in simulation.chunks(day)]


def test_features_change_clicks_and_nothing_else():
    """With a gain of 0 the log is the one without, but for the positions."""
    for without, with_them in zip(chunks(), chunks(feature_gain=0.0), strict=True):
        assert with_them.positions is not None
        for name in ("user_ids", "item_ids", "log_times_ms", "clicked", "click_probability"):
            assert np.array_equal(getattr(without, name), getattr(with_them, name)), name
    for without, with_them in zip(chunks(), chunks(feature_gain=1.0), strict=True):
        assert np.array_equal(without.impression_item_ids, with_them.impression_item_ids)
        assert np.array_equal(without.click_probability, with_them.unaided_probability)
        assert not np.array_equal(without.click_probability, with_them.click_probability)


def test_no_segment_and_no_age_is_clicked_more():
    pairs = SimulatedFeatures.of(SimulationPlan(seed=5, feature_gain=1.0)).pairs
    assert pairs.shape == (AGE_BANDS, SEGMENTS)
    assert np.allclose(pairs.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(pairs.mean(axis=1), 0, atol=1e-6)


def test_a_plan_without_features_is_the_plan_that_it_was():
    assert not {"feature_gain", "interest_gain"} & SimulationPlan().to_json().keys()
    assert SimulationPlan(feature_gain=0.0).to_json()["feature_gain"] == 0.0


def test_the_oracle_says_what_is_in_the_features(tmp_path):
    workspace = Workspace(tmp_path)
    made = workspace.simulate(users=300, items=300, days=6, feature_gain=1.0).log
    assert made.best_auc > made.unaided_auc + 0.03
    details = EventLog(tmp_path / "log").manifests()[0]["details"]
    assert details["best_reachable_auc_without_features"] == made.unaided_auc
    # By hand, from the files that a site would have.
    users = pq.read_table(table_path(tmp_path, Owner.USER)).to_pandas().set_index("user_id")
    items = pq.read_table(table_path(tmp_path, Owner.ITEM)).to_pandas().set_index("item_id")
    shown = pa.concat_tables(
        pq.read_table(file.path) for file in EventLog(tmp_path / "log").impression_files()
    ).to_pandas()
    shown = shown.join(users, on="user_id").join(items, on="item_id")
    assert shown.notna().all(axis=None)
    # Who spends much clicks the dear; so does nobody of a middle purse.
    odds = shown.spending * (np.log(shown.price) - 2.5)
    by_hand = BestAuc()
    spread = (odds.rank(pct=True) * 0.999).to_numpy().astype(np.float32)
    by_hand.add(spread, shown.clicked.to_numpy())
    assert by_hand.auc() > 0.53
    keys = [one.key for one in load_features(made.features)]
    assert keys == [
        "user.age_band", "user.spending", "item.segment", "item.price", "context.position",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_models_gain_from_features_is_what_the_oracle_says(tmp_path):
    workspace = Workspace(tmp_path)
    made = workspace.simulate(
        **PLAN, impressions_per_user_day=6, interest_gain=0.0, feature_gain=1.0
    ).log
    assert made.unaided_auc == 0.5
    workspace.samples("2025-01-02", "2025-01-16", gates=False)
    auc = {
        seen: workspace.train(
            "dnn", settings={**QUICK, "features": seen}, test_days=3, epochs=4
        ).metrics.auc
        for seen in (True, False)
    }
    gain, known = auc[True] - auc[False], made.best_auc - made.unaided_auc
    assert 0.8 * known < gain < 1.05 * known


@pytest.mark.slow
def test_coins_stay_coins_though_a_feature_tells_each_click_as_it_happens(tmp_path):
    """What comes to hold with an impression is not seen by it: else this AUC would be 1."""
    workspace = Workspace(tmp_path)
    workspace.simulate(**PLAN, impressions_per_user_day=12, interest_gain=0.0, feature_gain=0.0)
    path = table_path(tmp_path, Owner.USER)
    users = pq.read_table(path).to_pandas().set_index("user_id")
    shown = pa.concat_tables(
        pq.read_table(file.path) for file in EventLog(tmp_path / "log").impression_files()
    ).to_pandas()
    told = shown[["user_id", "event_time", "clicked"]].join(users, on="user_id")
    told = told.drop_duplicates(["user_id", "event_time"], keep="last")
    told = told.rename(columns={"event_time": "valid_from", "clicked": "last_clicked"})
    write_table(path, pa.Table.from_pandas(told, preserve_index=False))
    file = tmp_path / "features.yaml"
    text = file.read_text().replace("id: user_id}", "id: user_id, valid_from: valid_from}")
    text = text.replace("user:\n  age", "user:\n  last_clicked: {type: categorical}\n  age")
    file.write_text(text)
    workspace.samples("2025-01-02", "2025-01-16", gates=False)
    trained = workspace.train("dnn", settings=QUICK, test_days=8, epochs=1)
    assert 0.49 <= trained.metrics.auc <= 0.51
