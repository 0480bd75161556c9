"""`uic check` and the gates of `uic samples`: exit status 3, and nothing is published."""

import sys
from datetime import date
from pathlib import Path

import pytest

from tests.pipelines.quality.conftest import LogFolder, group_row, log_folder, write_samples
from uic.jobs import cli

__all__ = ["log_folder", "write_samples"]
DAY = date(2024, 3, 3)
DAYS = ["--first", "2024-03-03", "--last", "2024-03-05"]


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["uic", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def workspace(log_folder: LogFolder) -> Path:
    return log_folder.root.parent


def test_a_sound_log_ends_with_status_0_and_data_docs(monkeypatch, capsys, log_folder, workspace):
    log_folder.publish()
    assert run(monkeypatch, "check", "-w", str(workspace)) == 0
    shown = capsys.readouterr().out
    assert "FAIL" not in shown
    assert str(workspace / "reports" / "quality" / "behaviors.html") in shown
    pages = sorted(path.name for path in (workspace / "reports" / "quality").iterdir())
    assert pages == ["behaviors.html", "impressions.html"]


def test_a_fault_ends_with_status_3_one_line_and_examples(
    monkeypatch, capsys, log_folder, workspace
):
    log_folder.behaviors[DAY][5]["item_id"] = -1
    log_folder.impressions[DAY][5]["user_id"] = -1
    log_folder.publish()
    assert run(monkeypatch, "check", "all", "-w", str(workspace)) == 3
    shown = capsys.readouterr()
    assert shown.out.count("FAIL") == 2
    assert "item_id.negative: file=dt=2024-03-03/0.parquet, user_id=7, item_id=-1" in shown.err
    assert shown.err.splitlines()[-1] == (
        "error: quality gate of behaviors (2024-03-01 to 2024-03-05): column item_id: expected "
        "item_id is at least 0 (item_id.negative at most 0 rows: quality.max_faulty_rows), "
        "found 1 (2024-03-03: 1); "
        "also failed: impressions user_id.negative"
    )


def test_a_range_leaves_other_days_alone(monkeypatch, log_folder, workspace):
    log_folder.behaviors[DAY][5]["item_id"] = -1
    log_folder.publish()
    arguments = ("check", "behaviors", "--no-docs", "-w", str(workspace))
    assert run(monkeypatch, *arguments, "--first", "2024-03-04") == 0
    assert run(monkeypatch, *arguments, "--last", "2024-03-03") == 3
    assert not (workspace / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "samples"), "needs the name of the samples"),
        (("check", "behaviors", "tiny"), "the others take none"),
        (("check", "samples", "nothing"), "no samples of this name"),
        (("check", "behaviors", "--first", "2024-03-04", "--last", "2024-03-02"), "is after last"),
    ],
)
def test_bad_arguments_end_with_status_2(monkeypatch, capsys, log_folder, arguments, said):
    log_folder.publish()
    workspace = log_folder.root.parent
    assert run(monkeypatch, *arguments, "-w", str(workspace)) == 2
    assert said in capsys.readouterr().err


def test_nothing_to_judge_ends_with_status_2(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "check", "-w", str(tmp_path)) == 2
    assert "nothing to judge" in capsys.readouterr().err
    assert run(monkeypatch, "check", "behaviors", "-w", str(tmp_path)) == 2
    assert "no published behaviors" in capsys.readouterr().err


def test_published_samples_are_judged_by_name(monkeypatch, capsys, write_samples, tmp_path):
    from uic.models.published import publish_manifest

    group = group_row(1, DAY)
    group["history_lengths"] = [2, 3]
    root, manifest = write_samples([group])
    publish_manifest(root, manifest)
    assert run(monkeypatch, "check", "samples", "tiny", "-w", str(tmp_path / "var")) == 3
    assert "history_lengths.too_long at most 0 groups" in capsys.readouterr().err
    assert (tmp_path / "var" / "reports" / "quality" / "samples-tiny.html").is_file()


def test_samples_of_a_sound_log_are_published(monkeypatch, log_folder, workspace):
    log_folder.publish()
    assert run(monkeypatch, "samples", *DAYS, "-w", str(workspace)) == 0
    assert (workspace / "samples" / "default" / "manifest.json").is_file()
    assert (workspace / "reports" / "quality" / "samples-default.html").is_file()


def test_samples_of_a_faulty_log_are_not_built(monkeypatch, capsys, log_folder, workspace):
    log_folder.behaviors[DAY][5]["event_time"] = log_folder.behaviors[DAY][15]["event_time"]
    log_folder.publish()
    assert run(monkeypatch, "samples", *DAYS, "-w", str(workspace)) == 3
    assert "event_time.future" in capsys.readouterr().err
    assert not (workspace / "samples").exists()


def test_refused_samples_leave_the_published_ones_as_they_were(
    monkeypatch, capsys, log_folder, workspace
):
    log_folder.publish()
    assert run(monkeypatch, "samples", *DAYS, "-w", str(workspace)) == 0
    root = workspace / "samples" / "default"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    # The log passes (too few impressions a day to judge a rate), its samples do not.
    monkeypatch.setenv("UIC_QUALITY__MAX_CLICK_RATE", "0.1")
    monkeypatch.setenv("UIC_QUALITY__MIN_JUDGED_ROWS", "100")
    monkeypatch.setattr("uic.jobs.checks.gates.check_inputs", lambda *_, **_more: None)
    assert run(monkeypatch, "samples", *DAYS[:2], "--last", "2024-03-05", "-w", str(workspace)) == 3
    assert "labels.rate" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert run(monkeypatch, "samples", *DAYS, "--out", "new", "-w", str(workspace)) == 3
    assert [path for path in (workspace / "samples" / "new").rglob("*") if path.is_file()] == []


def test_a_sound_log_can_be_sampled_without_gates(monkeypatch, log_folder, workspace):
    log_folder.behaviors[DAY][5]["item_id"] = -1
    log_folder.publish()
    assert run(monkeypatch, "samples", *DAYS, "--no-gates", "-w", str(workspace)) == 0
    assert not (workspace / "reports").exists()
