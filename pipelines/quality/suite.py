"""Great Expectations judges a metrics frame.

The import takes seconds (scipy, altair, sqlalchemy), the judging of a frame of a hundred days a
quarter of a second, so `great_expectations` imports it when a frame is there to judge. The
context is ephemeral: nothing is written, nothing is sent.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from uic.pipelines.quality.checks import OVER_DAYS, Check

# Every failing day is wanted, and no query text with a random id in the page.
_RESULT_FORMAT: Final = {
    "result_format": "COMPLETE",
    "return_unexpected_index_query": False,
    "partial_unexpected_count": 20,
}


@dataclass(frozen=True)
class CheckVerdict:
    """What became of one check.

    Args:
        check: the check.
        success: whether it passed.
        observed: the worst value seen (the sum for a check over days); None if none was judged.
        failing: `(day or file, value)` of the frame's rows that failed, in order.
    """

    check: Check
    success: bool
    observed: float | None
    failing: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Judgement:
    """The verdicts in the order of the checks, and the result that Data Docs are made of."""

    verdicts: tuple[CheckVerdict, ...]
    validation: Any


def great_expectations() -> Any:
    """The library; the first call takes seconds, which only a gate pays."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Its remarks at INFO would be on standard error as soon as anything has set up logging, as Beam
    # does. One of its modules sets its own level to INFO when it is imported.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as library  # noqa: PLC0415 - seconds

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    return library


def judge(name: str, frame: pd.DataFrame, checks: Sequence[Check], label: str) -> Judgement:
    """Validate a metrics frame.

    Args:
        name: of the suite.
        frame: one row a day or file; NaN is not judged.
        checks: what to expect.
        label: the frame's column that names its rows.

    Raises:
        RuntimeError: Great Expectations could not evaluate a check.
    """
    gx = great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    suite = gx.ExpectationSuite(
        name=name, expectations=[_expectation(gx.expectations, check) for check in checks]
    )
    asset = context.data_sources.add_pandas("metrics").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(
        batch_parameters={"dataframe": frame}
    )
    validation = batch.validate(
        suite, result_format={**_RESULT_FORMAT, "unexpected_index_column_names": [label]}
    )
    by_metric = {
        result.expectation_config.kwargs["column"]: result for result in validation.results
    }
    for result in validation.results:
        # Great Expectations cannot render numpy's scalars, which a sum is.
        if "observed_value" in result.result:
            result.result["observed_value"] = float(result.result["observed_value"])
    verdicts = tuple(_verdict(check, by_metric[check.metric], frame, label) for check in checks)
    return Judgement(verdicts, validation)


def _expectation(kinds: Any, check: Check) -> Any:
    kind = (
        kinds.ExpectColumnSumToBeBetween
        if check.over == OVER_DAYS
        else kinds.ExpectColumnValuesToBeBetween
    )
    return kind(
        column=check.metric,
        min_value=check.low,
        max_value=check.high,
        description=f"{check.column}: {check.sentence} ({limits(check)})",
    )


def limits(check: Check) -> str:
    """The limits of a check, for people."""
    if check.low is None:
        return f"at most {number(check.high or 0)} {check.unit}"
    if check.high is None:
        return f"at least {number(check.low)} {check.unit}"
    return f"{number(check.low)} to {number(check.high)}"


def number(value: float) -> str:
    """A count or a ratio, for people."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _verdict(check: Check, result: Any, frame: pd.DataFrame, label: str) -> CheckVerdict:
    if result.exception_info.get("raised_exception"):
        msg = f"expectation of {check.metric}: {result.exception_info['exception_message']}"
        raise RuntimeError(msg)
    success = bool(result.success)
    values = frame[check.metric]
    if check.over == OVER_DAYS:
        faulty = frame.loc[values > 0, [label, check.metric]] if not success else frame.iloc[:0]
        failing = tuple((str(day), float(value)) for day, value in faulty.itertuples(index=False))
        return CheckVerdict(check, success, float(result.result["observed_value"]), failing)
    failing = tuple(
        (str(entry[label]), float(entry[check.metric]))
        for entry in result.result.get("unexpected_index_list") or ()
    )
    judged = values.dropna()
    if judged.empty:
        return CheckVerdict(check, success, None, failing)
    low_side = check.low is not None and judged.min() < check.low
    return CheckVerdict(check, success, float(judged.min() if low_side else judged.max()), failing)
