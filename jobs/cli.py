"""The `uic` command: parses arguments, runs one command, turns errors into exit statuses.

Exit status: 0 done; 2 bad input, bad file, bad setting, bad argument; 3 a quality gate or an
audit failed; 1 anything else. Each group of commands is a module of `uic.jobs.commands`; nothing
heavy is imported before the command that needs it runs.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from typer.core import TyperGroup

import uic
from uic.jobs.commands import (
    audit,
    bundle,
    check,
    compare,
    config,
    daily,
    dead_letters,
    demo,
    doctor,
    drill,
    evaluate,
    events,
    experiment,
    features,
    id_,
    images,
    import_,
    init,
    log,
    memories,
    replay,
    report,
    samples,
    serve,
    simulate,
    state,
    store,
    stream,
    train,
    tune,
    user,
)
from uic.jobs.commands.examples import add_examples
from uic.jobs.commands.options import BEAM_SETTINGS
from uic.jobs.config.console import ERR, OUT, printable
from uic.models.errors import UicError

# In the order of a newcomer's day: by panel, the commands and groups of commands.
PANELS: Final[dict[str, dict[str, Callable[..., None] | typer.Typer]]] = {
    "Start": {
        "demo": demo.demo,
        "init": init.init,
        "doctor": doctor.doctor,
        "config": config.app,
        "daily": daily.daily,
        "report": report.report,
    },
    "Data": {
        "import": import_.app,
        "simulate": simulate.simulate,
        "check": check.check,
        "id": id_.id_,
        "features": features.app,
        "samples": samples.samples,
        "events": events.app,
        "log": log.app,
        "dead-letters": dead_letters.app,
    },
    "Models": {
        "train": train.train,
        "tune": tune.tune,
        "evaluate": evaluate.evaluate,
        "compare": compare.compare,
        "bundle": bundle.app,
        "images": images.app,
        "experiment": experiment.experiment,
    },
    "Memories": {
        "state": state.app,
        "store": store.app,
        "memories": memories.app,
        "stream": stream.app,
        "user": user.app,
        "audit": audit.audit,
    },
    "Serving": {"serve": serve.app},
    "Rehearse": {"drill": drill.app, "replay": replay.app},
}
_SAMPLES: Final[dict[str, Any]] = {"cls": samples.SamplesCommand, "context_settings": BEAM_SETTINGS}


class _DayOrder(TyperGroup):
    """Lists commands panel by panel; Typer puts all commands before all groups."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # Typer's own class
        """Names in the order of `PANELS`."""
        del ctx
        return [name for entries in PANELS.values() for name in entries]


app = typer.Typer(
    name="uic",
    cls=_DayOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One small learned memory per user: from the behaviour log to ranking.",
)
for _panel, _entries in PANELS.items():
    for _name, _entry in _entries.items():
        if isinstance(_entry, typer.Typer):
            app.add_typer(_entry, name=_name, rich_help_panel=_panel)
        else:
            _form = _SAMPLES if _name == "samples" else {}
            app.command(_name, rich_help_panel=_panel, **_form)(_entry)
add_examples(app)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer's signature of a callback
    if asked:
        OUT.print(f"uic {uic.__version__}", markup=False)
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run `uic`; every `UicError` is one line on standard error and its exit status."""
    try:
        app()
    except UicError as error:
        ERR.print(f"[bold red]error:[/] {escape(printable(' '.join(str(error).split())))}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
