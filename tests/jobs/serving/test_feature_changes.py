"""Features that change, or are not there, under a running service: it answers on, and says so."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.jobs.serving.feature_shop import (
    CONTEXT,
    FILE,
    LENGTHS,
    SHOWN,
    fitted,
    joined,
    write_tables,
)
from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import Shop, offline_logits, random_events
from uic.feature_repo.plugin.user_rows import load_user_rows
from uic.models.features.definition import Owner
from uic.models.features.raw import missing_values

pytestmark = pytest.mark.slow


def probabilities(bundle, raw, user=1):
    logits = offline_logits(bundle, random_events(LENGTHS), user - 1, user, SHOWN, features=raw)
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def of_shown(answer):
    by_item = {item["item_id"]: item["probability"] for item in answer["items"]}
    return [by_item[item] for item in SHOWN]


def without(features, raw, *owners):
    """Raw values with the defaults of some owners' features."""
    defaults = {
        named.key: missing_values(named.feature, len(SHOWN))
        for owner in owners
        for named in features.of(owner)
    }
    return {**raw, **defaults}


def test_a_service_follows_items_answers_without_and_survives_what_it_cannot_read(shop: Shop):
    features = write_tables(shop.workspace)
    bundle = shop.bundle("0001", seed=3, features=fitted(features))
    shop.generation(1, bundle, LENGTHS)
    load_user_rows(shop.settings, shop.workspace, features)
    path = shop.workspace / "features.yaml"
    with running_service(shop.workspace) as service:

        def serves(raw):
            answer = service.rank(1, SHOWN, context=CONTEXT)
            return np.allclose(of_shown(answer), probabilities(bundle, raw), atol=1e-5)

        assert serves(joined(features, 1, CONTEXT))
        # Another table of items.
        items = pq.read_table(shop.workspace / "items.parquet").to_pandas()
        items["price"] = items["price"] * 7
        items.loc[items["since"] > pd.Timestamp("2023-02-01"), "shop"] = 3
        items.to_parquet(shop.workspace / "items.parquet.new")
        (shop.workspace / "items.parquet.new").rename(shop.workspace / "items.parquet")
        changed = joined(features, 1, CONTEXT)
        service.wait_until(lambda: serves(changed))
        # A file that is none: what was read stays, and the problem is said.
        path.write_text("version: 7\n")
        service.wait_until(lambda: service.ready()["features"]["warnings"])
        assert "features.yaml: version" in service.ready()["features"]["warnings"][0]
        assert serves(changed)
        # No feature of items any more: their defaults, and a warning for each.
        path.write_text(FILE.partition("item:\n  price")[0])
        expected = without(features, changed, Owner.ITEM)
        service.wait_until(lambda: serves(expected))
        warnings = service.ready()["features"]["warnings"]
        lacking = [line.partition(":")[0] for line in warnings]
        assert lacking == ["item.price", "item.shop", "item.look"]
        assert service.rank(1, SHOWN, context=CONTEXT)["reasons"] == ["feature_missing"]
        assert "item.price: the bundle wants it" in service.log.read_text()
        # The store is away: a new user without features, and the context as it was said.
        shop.stop()
        answer = service.rank(1, SHOWN, context=CONTEXT)
        assert {"store_unavailable", "feature_missing"} <= set(answer["reasons"])
        nothing = without(features, changed, Owner.ITEM, Owner.USER)
        np.testing.assert_allclose(of_shown(answer), probabilities(bundle, nothing, 2), atol=1e-5)


def test_a_service_starts_without_any_file_of_features_and_says_what_it_lacks(shop: Shop):
    features = write_tables(shop.workspace)
    bundle = shop.bundle("0001", seed=3, features=fitted(features))
    shop.generation(1, bundle, LENGTHS)
    raw = joined(features, 1, CONTEXT)
    (shop.workspace / "features.yaml").unlink()
    with running_service(shop.workspace) as service:
        warnings = service.ready()["features"]["warnings"]
        assert len(warnings) == len(features.of(Owner.USER)) + len(features.of(Owner.ITEM))
        answer = service.rank(1, SHOWN, context=CONTEXT)
        expected = without(features, raw, Owner.USER, Owner.ITEM)
        np.testing.assert_allclose(of_shown(answer), probabilities(bundle, expected), atol=1e-5)
        assert answer["reasons"] == ["feature_missing"]
