"""What is expected of a metrics frame: one `Check` a metric, with its limits from the settings.

A check is a plain value; `suite` makes a Great Expectations expectation of it.
"""

from dataclasses import dataclass
from typing import Final

from uic.pipelines.quality.facts import IMPRESSIONS_TABLE, JudgedTable, LogRules

OVER_DAYS: Final = "sum"
EACH: Final = "each"
FAULTY_ROWS: Final = ("max_faulty_rows",)


@dataclass(frozen=True)
class Check:
    """One expectation of a metrics frame.

    Args:
        metric: column of the frame; `column.fault`.
        sentence: what holds when the check passes; for people.
        low: least value; None for no limit.
        high: largest value; None for no limit.
        unit: what the values are: rows, days, ratio.
        over: `each` value of the metric is judged, or their `sum`.
        settings: of the section `quality`, that the limits are; none where they are fixed.
    """

    metric: str
    sentence: str
    low: float | None
    high: float | None
    unit: str = "rows"
    over: str = EACH
    settings: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """The column of the table that the check is about."""
        return self.metric.split(".")[0]


def log_checks(table: JudgedTable, rules: LogRules) -> tuple[Check, ...]:
    """The checks of a log table; those of whole days first, since they explain the others."""
    quality = rules.quality
    most = quality.max_faulty_rows
    of_days = (
        Check(
            "rows.missing_day",
            "every day of the range has rows",
            None,
            quality.max_missing_days,
            "days",
            OVER_DAYS,
            settings=("max_missing_days",),
        ),
        Check(
            "rows.volume_ratio",
            f"rows of a day over the median of the {quality.trailing_days} days before",
            quality.min_volume_ratio,
            quality.max_volume_ratio,
            "ratio",
            settings=("min_volume_ratio", "max_volume_ratio"),
        ),
    )
    checks = [
        *(of_days if rules.daily else ()),
        Check("rows.not_as_manifest", "a file has as many rows as its manifest says", None, 0),
        *(
            Check(rule.metric, rule.sentence, None, most, settings=FAULTY_ROWS)
            for rule in table.rules
        ),
    ]
    if table is IMPRESSIONS_TABLE:
        checks.append(
            Check(
                "clicked.rate",
                "clicks over impressions, of a day and of all",
                quality.min_click_rate,
                quality.max_click_rate,
                "ratio",
                settings=("min_click_rate", "max_click_rate"),
            )
        )
    return tuple(checks)
