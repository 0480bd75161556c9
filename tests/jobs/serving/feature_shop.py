"""The shop with features beside ids: tables of users and items, and what samples say of them."""

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.jobs.serving.shop import FIRST_ITEM, ITEM_COUNT, write_log
from uic.feature_repo.store.layout import SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.stream.fold.sequence_fill import fill_sequences
from uic.models.features.dated import DatedTable
from uic.models.features.definition import Owner
from uic.models.features.feature_file import load_features
from uic.models.features.fitted import fit_features
from uic.models.features.raw import missing_values, raw_values
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.event_log import EventLog

FILE = """\
version: 1
sources:
  user: {file: users.parquet, id: user_id, valid_from: since}
  item: {file: items.parquet, id: item_id, valid_from: since}
user:
  band: {type: categorical, min_count: 1}
  balance: {type: number, scale: log}
  likes: {type: categories, most: 3, min_count: 1}
item:
  price: {type: number, scale: buckets, buckets: 4}
  shop: {type: categorical, min_count: 1, width: 4}
  look: {type: embedding, width: 2}
context:
  tab: {type: categorical, min_count: 1, default: home}
  position: {type: number}
  words: {type: categories, most: 2, min_count: 1}
"""
LENGTHS = np.array([5, 0, 30, 12, 7])
USERS = np.arange(1, len(LENGTHS) + 1)
WITHOUT_ROW = 4  # has a memory
SHOWN = [1003, 1001, 1400, 1499, 1250]
ITEM_WITHOUT_ROW = 1400
POSITIONS = [1, 2, 3, 4, 5]
CONTEXT = {"tab": "search", "position": POSITIONS, "words": ["red", "shoe", "dropped"]}


def write_tables(folder, *, balance=10.0):
    """Users and items with a row of the past, of now, and one of a day that is to come."""
    draw = np.random.default_rng(2)
    days = pd.to_datetime(["2023-01-01", "2023-06-01", "2100-01-01"])
    users = pd.DataFrame(
        [
            {
                "user_id": user,
                "since": day,
                "band": draw.choice(["young", "old"]),
                "balance": balance * user + at,
                "likes": draw.choice(["a", "b", "c"], at).tolist(),
            }
            for user in USERS.tolist()
            if user != WITHOUT_ROW
            for at, day in enumerate(days)
        ]
    )
    items = pd.DataFrame(
        [
            {
                "item_id": item,
                "since": day,
                "price": draw.exponential(),
                "shop": int(draw.integers(0, 9)),
                "look": draw.normal(size=2).astype("f4").tolist(),
            }
            for item in range(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT)
            if item != ITEM_WITHOUT_ROW
            for day in days
        ]
    )
    for name, table in (("users", users), ("items", items)):
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(arrow, folder / f"{name}.parquet")
    (folder / "features.yaml").write_text(FILE)
    return load_features(folder / "features.yaml")


def tables_of(features):
    return {
        owner: DatedTable.read(features.folder / source.file, source, features.of(owner))
        for owner, source in (
            (Owner.USER, features.sources.user),
            (Owner.ITEM, features.sources.item),
        )
    }


def joined(features, user, context):
    """Raw values of `SHOWN`, joined as samples join them, of the moment."""
    now = np.full(len(SHOWN), time.time_ns() // 1_000_000)
    raw = {}
    for owner, table in tables_of(features).items():
        ids = np.full(len(SHOWN), user) if owner is Owner.USER else np.array(SHOWN)
        rows = table.as_of(ids, now)
        raw |= {named.key: table.take(named, rows) for named in table.features}
    for named in features.of(Owner.CONTEXT):
        if named.name not in context:
            raw[named.key] = missing_values(named.feature, len(SHOWN))
            continue
        given = context[named.name]
        values = given if named.name == "position" else [given] * len(SHOWN)
        raw[named.key] = raw_values(named.feature, values, named.key)
    return raw


def fitted(features):
    batches = [joined(features, user, CONTEXT) for user in USERS.tolist()]
    return fit_features(features, batches)


def write_sequences(shop):
    write_log(shop, LENGTHS)
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_sequences(shop.settings.project)
        packed = PackedStore(store.client, keys, layout=SEQUENCE)
        fill_sequences(EventLog(shop.workspace / "log"), packed, SequenceRing(), USERS)
