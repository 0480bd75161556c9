"""The `uic` command: parses arguments, runs one command, turns errors into exit statuses.

Exit status: 0 done; 2 bad input, bad file, bad setting, bad argument; 3 a quality gate or an
audit failed; 1 anything else. Each group of commands is a module of `uic.jobs.commands`; nothing
heavy is imported before the command that needs it runs.
"""

import sys
from typing import Annotated, Final

import typer
from rich.markup import escape
from typer.core import TyperGroup

import uic
from uic.jobs.commands import (
    audit,
    bundle,
    check,
    config,
    dead_letters,
    demo,
    doctor,
    drill,
    evaluate,
    events,
    experiment,
    images,
    import_,
    log,
    memories,
    replay,
    report,
    samples,
    serve,
    simulate,
    store,
    stream,
    train,
    user,
)
from uic.jobs.config.console import ERR, OUT
from uic.models.errors import UicError

# In the order of a newcomer's day.
PANELS: Final = {
    "Start": (demo, doctor, config, report),
    "Data": (import_, simulate, check, samples, events, log, dead_letters),
    "Models": (train, evaluate, bundle, images, experiment),
    "Memories": (store, memories, stream, user, audit),
    "Serving": (serve,),
    "Rehearse": (drill, replay),
}


class _DayOrder(TyperGroup):
    """Lists commands panel by panel; Typer puts all commands before all groups."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # Typer's own class
        """Names in the order of `PANELS`."""
        order = {name: at for at, name in enumerate(_NAMES)}
        return sorted(super().list_commands(ctx), key=lambda name: order[name])


app = typer.Typer(
    name="uic",
    cls=_DayOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One small learned memory per user: from the behaviour log to ranking.",
)
_NAMES: Final[list[str]] = []
for _panel, _modules in PANELS.items():
    for _module in _modules:
        _NAMES.append(_module.register(app, _panel))


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
        ERR.print(f"[bold red]error:[/] {escape(' '.join(str(error).split()))}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
