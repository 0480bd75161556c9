"""The section about models: tests, intervals, simple baselines, and what a reader should know."""

from typing import Any, Final

from uic.jobs.config.context import Context
from uic.jobs.report import figures
from uic.jobs.report.html import Page, number


def models_section(page: Page, models: list[dict[str, Any]], _: Context) -> None:
    """Add the section to a page."""
    page.section("Models", about_tests(models))
    drawn = [row for row in models if row["curve"]]
    if drawn:
        page.figure("figure-training", figures.training(drawn), "Loss while training.")
    validated = [row for row in models if any((row["validation"] or {}).get("auc", ()))]
    if validated:
        caption = "AUC of the validation days after each epoch; the ring is the epoch kept."
        page.figure("figure-validation", figures.validation(validated), caption)
    if any(row["test"] for row in models):
        caption = "AUC and GAUC of each model's own test days; the line on a bar is 95 %."
        page.figure("figure-models", figures.model_table(models), caption)
        page.table(_MODEL_COLUMNS, [_model_row(row) for row in models if row["test"]])
        said = [row for row in models if (row["test"] or {}).get("deciles")]
        if said:
            caption = "Of each tenth of the test impressions: the probability said, and the clicks."
            page.figure("figure-calibration", figures.calibration(said), caption)
        lines = list(dict.fromkeys(line for row in models for line in _remarks(row)))
        few = [line for line in lines if "test impressions are few" in line]
        for line in lines:
            if line not in few:
                page.note(line)
        if few:
            more = f" The same holds for {len(few) - 1} others." if len(few) > 1 else ""
            page.note(few[0] + more)


_MODEL_COLUMNS: Final = (
    "model", "impressions", "test days", "epoch kept", "AUC", "95 %", "GAUC", "LogLoss",
    "AUC of clicks", "LogLoss of the rate",
)  # fmt: skip


def about_tests(models: list[dict[str, Any]]) -> str:
    """What the tests of these models were; nothing is said that differs between them."""
    tests = {tuple(row["test_days"]) for row in models if row["test_days"]}
    if not tests:
        return "None of these models was tested: there were no test days."
    if len(tests) == 1:
        [(first, last)] = tests
        days = first if first == last else f"{first} to {last}"
        return f"Each was tested on {days}, which it was not trained on."
    return (
        f"They were tested on {len(tests)} different ranges of days, so their figures cannot be "
        "compared with each other: a later model may have been trained on an earlier one's test."
    )


def _model_row(row: dict[str, Any]) -> tuple[str, ...]:
    test, baselines = row["test"], row["baselines"] or {}
    low, high = row["interval"]
    return (
        f"{row['model']}/{row['version']}",
        f"{test['impressions']:,}",
        " to ".join(dict.fromkeys(row["test_days"] or ())),
        _kept(row["validation"]),
        number(test["auc"]),
        "-" if low is None else f"{low:.3f} to {high:.3f}",
        number(test["gauc"]),
        number(test["logloss"]),
        number(baselines.get("popularity_auc")),
        number(baselines.get("rate_logloss")),
    )


def _kept(validation: dict[str, Any] | None) -> str:
    """Which epoch the validation days chose, of how many."""
    if not validation:
        return "the last"
    return f"{validation['kept_epoch']} of {len(validation['auc'])}"


def _remarks(row: dict[str, Any]) -> list[str]:
    return [f"{row['model']}/{row['version']}: {line}." for line in row["remarks"]]
