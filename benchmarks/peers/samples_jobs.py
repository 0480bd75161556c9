"""The peers of `benchmarks/samples.py`: what one would write instead, for the same job.

Each takes the same Parquet files and writes the same rows: groups of (user, UTC day) with their
history of 60 days, at most 1,000 events before the first impression. None has sale days or a
guard to do. All use both cores if their library does.
"""

from bisect import bisect_left
from datetime import timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import polars as pl
import pyarrow as pa

from uic.models.samples.schema import SAMPLES

WINDOW_DAYS = 60
HISTORY_CAP = 1000


def duckdb_samples(behaviors: list[str], impressions: list[str], output: Path) -> None:
    """One SQL statement: AS OF joins for the cuts, a list of each user's events, slices of it."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(
        f"""
        COPY (
        WITH b AS MATERIALIZED (
            SELECT user_id, item_id, category_id, event_time, log_time,
                CAST(list_position(['click', 'cart', 'favourite', 'buy'],
                                   CAST(behavior AS VARCHAR)) - 1 AS TINYINT) AS behavior,
                row_number() OVER (PARTITION BY user_id ORDER BY epoch, "offset") AS n
            FROM read_parquet({behaviors})
        ), moments AS MATERIALIZED (
            SELECT user_id, log_time, max(n) AS n FROM b GROUP BY ALL
        ), histories AS (
            SELECT user_id, list(item_id ORDER BY n) AS items,
                list(category_id ORDER BY n) AS categories,
                list(behavior ORDER BY n) AS behaviors, list(event_time ORDER BY n) AS times
            FROM b WHERE user_id IN (SELECT user_id FROM read_parquet({impressions}))
            GROUP BY user_id
        ), i AS (
            SELECT user_id, item_id, category_id, event_time, clicked,
                CAST(event_time AS DATE) AS dt, filename, file_row_number
            FROM read_parquet({impressions}, filename = true, file_row_number = true)
        ), seen AS (
            SELECT i.*, coalesce(moments.n, 0) AS n
            FROM i ASOF LEFT JOIN moments
            ON i.user_id = moments.user_id AND i.event_time > moments.log_time
        ), groups AS (
            SELECT user_id, dt, min(event_time) AS first_time, min(n) AS first_n, max(n) AS last_n,
                list(item_id ORDER BY event_time, filename, file_row_number) AS item_ids,
                list(category_id ORDER BY event_time, filename, file_row_number) AS category_ids,
                list(event_time ORDER BY event_time, filename, file_row_number) AS event_times,
                list(clicked ORDER BY event_time, filename, file_row_number) AS labels,
                list(n ORDER BY event_time, filename, file_row_number) AS ns
            FROM seen GROUP BY user_id, dt
        ), started AS (
            SELECT groups.*, greatest(coalesce(moments.n, 0), first_n - {HISTORY_CAP}) AS start
            FROM groups ASOF LEFT JOIN moments
            ON groups.user_id = moments.user_id
            AND groups.first_time - INTERVAL {WINDOW_DAYS} DAY > moments.log_time
        )
        SELECT started.user_id, dt,
            coalesce(list_slice(items, start + 1, last_n), []) AS history_item_ids,
            coalesce(list_slice(categories, start + 1, last_n), []) AS history_category_ids,
            coalesce(list_slice(behaviors, start + 1, last_n), []) AS history_behaviors,
            coalesce(list_slice(times, start + 1, last_n), []) AS history_times,
            item_ids, category_ids, event_times, labels,
            list_transform(ns, lambda n: CAST(n - start AS INTEGER)) AS history_lengths
        FROM started LEFT JOIN histories ON started.user_id = histories.user_id
        ) TO '{output}' (FORMAT parquet, COMPRESSION lz4_raw)
        """
    )


def polars_samples(behaviors: list[str], impressions: list[str], output: Path) -> None:
    """As of joins for the cuts, a list of each user's events, slices of it."""
    shown = (
        pl.scan_parquet(impressions)
        .select("user_id", "item_id", "category_id", "event_time", "clicked")
        .with_row_index("place")
        .with_columns(dt=pl.col("event_time").dt.date())
        .collect()
    )
    users = shown.select("user_id").unique()
    events = (
        pl.scan_parquet(behaviors)
        .select(
            "user_id", "item_id", "category_id", "event_time", "log_time", "epoch", "offset",
            pl.col("behavior").cast(pl.String).replace_strict(
                ["click", "cart", "favourite", "buy"], [0, 1, 2, 3], return_dtype=pl.Int8
            ),
        )
        .join(users.lazy(), on="user_id", how="semi")
        .sort("user_id", "epoch", "offset")
        .with_columns(n=pl.int_range(1, pl.len() + 1).over("user_id"))
        .collect()
    )  # fmt: skip
    moments = events.select("user_id", "log_time", "n").sort("log_time", maintain_order=True)
    seen = (
        shown.sort("event_time", "place")
        .join_asof(
            moments, left_on="event_time", right_on="log_time", by="user_id",
            allow_exact_matches=False, check_sortedness=False,
        )
        .with_columns(pl.col("n").fill_null(0))
    )  # fmt: skip
    groups = (
        seen.group_by("dt", "user_id", maintain_order=True)
        .agg(
            pl.col("event_time").first().alias("first_time"),
            pl.col("n").first().alias("first_n"),
            pl.col("n").last().alias("last_n"),
            pl.col("item_id").alias("item_ids"),
            pl.col("category_id").alias("category_ids"),
            pl.col("event_time").alias("event_times"),
            pl.col("clicked").alias("labels"),
            pl.col("n").alias("ns"),
        )
        .with_columns(oldest=pl.col("first_time") - pl.duration(days=WINDOW_DAYS))
        .sort("oldest")
        .join_asof(
            moments, left_on="oldest", right_on="log_time", by="user_id",
            allow_exact_matches=False, check_sortedness=False,
        )
        .with_columns(
            start=pl.max_horizontal(pl.col("n").fill_null(0), pl.col("first_n") - HISTORY_CAP)
        )
    )  # fmt: skip
    histories = events.group_by("user_id", maintain_order=True).agg(
        pl.col("item_id").alias("history_item_ids"),
        pl.col("category_id").alias("history_category_ids"),
        pl.col("behavior").alias("history_behaviors"),
        pl.col("event_time").alias("history_times"),
    )
    names = ("history_item_ids", "history_category_ids", "history_behaviors", "history_times")
    (
        groups.lazy()
        .join(histories.lazy(), on="user_id", how="left")
        .select(
            "user_id", "dt",
            *(
                pl.col(name).list.slice(pl.col("start"), pl.col("last_n") - pl.col("start"))
                .fill_null([])
                for name in names
            ),
            "item_ids", "category_ids", "event_times", "labels",
            history_lengths=pl.col("ns").list.eval(pl.element().cast(pl.Int32))
            - pl.col("start").cast(pl.Int32),
        )
        .sink_parquet(output, compression="lz4")
    )  # fmt: skip


def row_wise_beam_samples(behaviors: list[str], impressions: list[str], output: Path) -> None:
    """The pipeline of the textbook: rows as dicts, GroupByKey by user, Python builds the groups."""
    codes = {"click": 0, "cart": 1, "favourite": 2, "buy": 3}
    window = timedelta(days=WINDOW_DAYS)

    def behavior_row(row: dict[str, Any]) -> tuple[int, tuple[Any, ...]]:
        return row["user_id"], (
            row["epoch"], row["offset"], row["log_time"], row["item_id"], row["category_id"],
            codes[row["behavior"]], row["event_time"],
        )  # fmt: skip

    def impression_row(row: dict[str, Any]) -> tuple[int, tuple[Any, ...]]:
        return row["user_id"], (
            row["event_time"], row["item_id"], row["category_id"], row["clicked"],
        )  # fmt: skip

    def groups(element: tuple[int, dict[str, Any]]):
        user, rows = element
        events = sorted(rows["behaviors"], key=lambda event: event[:2])
        log_times = [event[2] for event in events]
        by_day: dict[Any, list[Any]] = {}
        for shown in sorted(rows["impressions"], key=lambda shown: shown[0]):
            by_day.setdefault(shown[0].date(), []).append(shown)
        for dt, shown in by_day.items():
            seen = [bisect_left(log_times, impression[0]) for impression in shown]
            start = max(bisect_left(log_times, shown[0][0] - window), seen[0] - HISTORY_CAP)
            history = events[start : seen[-1]]
            yield {
                "user_id": user,
                "dt": dt,
                "history_item_ids": [event[3] for event in history],
                "history_category_ids": [event[4] for event in history],
                "history_behaviors": [event[5] for event in history],
                "history_times": [event[6] for event in history],
                "item_ids": [impression[1] for impression in shown],
                "category_ids": [impression[2] for impression in shown],
                "event_times": [impression[0] for impression in shown],
                "labels": [impression[3] for impression in shown],
                "history_lengths": [before - start for before in seen],
            }

    def read(paths: list[str], columns: list[str]):
        return beam.Create(paths), beam.io.ReadAllFromParquet(columns=columns)

    with beam.Pipeline(runner="DirectRunner") as pipeline:
        paths, files = read(
            behaviors,
            ["user_id", "item_id", "category_id", "behavior", "event_time", "log_time", "epoch",
             "offset"],
        )  # fmt: skip
        events = pipeline | "BehaviorFiles" >> paths | "Behaviors" >> files
        paths, files = read(
            impressions, ["user_id", "item_id", "category_id", "event_time", "clicked"]
        )
        shown = pipeline | "ImpressionFiles" >> paths | "Impressions" >> files
        by_user = {
            "behaviors": events | "KeyBehaviors" >> beam.Map(behavior_row),
            "impressions": shown | "KeyImpressions" >> beam.Map(impression_row),
        } | beam.CoGroupByKey()
        _ = (
            by_user
            | beam.FlatMap(groups)
            | beam.io.WriteToParquet(
                str(output), pa.schema([(field.name, field.type) for field in SAMPLES]),
                codec="snappy", file_name_suffix=".parquet",
            )
        )  # fmt: skip
