"""What takes long says how far it is, also where no terminal shows a bar."""

import time

from uic.jobs.commands.options import shown_progress
from uic.jobs.config import console


def test_without_a_terminal_a_line_says_now_and_then_how_far_a_step_is(capsys):
    said = iter(["folding: 3 of 9 (33%)", "folding: 6 of 9 (67%)"])
    with console.signs_of_life(lambda: next(said, "the end"), seconds=0.05):
        time.sleep(0.18)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["folding: 3 of 9 (33%), for 0 s", "folding: 6 of 9 (67%), for 0 s"]
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_the_line_is_of_the_step_that_runs():
    with console.progress_display() as display:
        assert console.how_far(display) == "starting"
        first = display.add_task("reading", total=40)
        display.update(first, completed=10)
        assert console.how_far(display) == "reading: 10 of 40 (25%)"
        display.update(first, completed=40)
        second = display.add_task("grouping", total=None)
        assert console.how_far(display) == "grouping"
        display.update(second, completed=1234)
        assert console.how_far(display) == "grouping: 1,234"


def test_commands_tell_it(monkeypatch, capsys):
    quick = console.signs_of_life
    monkeypatch.setattr(console, "signs_of_life", lambda text: quick(text, seconds=0.05))
    with shown_progress() as progress:
        progress("users", 5, 10)
        time.sleep(0.12)
    with console.working("drawing"):
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert "users: 5 of 10 (50%), for 0 s" in lines
    assert "drawing, for 0 s" in lines
