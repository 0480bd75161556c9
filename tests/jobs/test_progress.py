"""What takes long says how far it is, also where no terminal shows a bar."""

from threading import Event

from uic.jobs.commands.options import shown_progress
from uic.jobs.config import console

# The wait is for a thread on a busy machine.
SECONDS = 60


def test_without_a_terminal_a_line_says_now_and_then_how_far_a_step_is(capsys):
    said, twice = [], Event()

    def text():
        said.append(f"folding: {len(said)} of 9")
        if len(said) == 2:
            twice.set()
        return said[-1]

    with console.signs_of_life(text, seconds=0.01):
        assert twice.wait(SECONDS)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", for ")[0] for line in lines] == said
    assert lines[0].endswith(" s")


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


def test_what_commands_use_tells_it(monkeypatch, capsys):
    quick, told = console.signs_of_life, Event()

    def noted(text):
        def line():
            told.set()
            return text()

        return quick(line, seconds=0.01)

    monkeypatch.setattr(console, "signs_of_life", noted)
    with shown_progress() as progress:
        progress("users", 5, 10)
        told.clear()
        assert told.wait(SECONDS)
    told.clear()
    with console.working("drawing"):
        assert told.wait(SECONDS)
    said = capsys.readouterr().err
    assert "users: 5 of 10 (50%), for " in said
    assert "drawing, for " in said
