"""The `uic` command: parses arguments, runs one command, turns errors into exit statuses.

Exit status: 0 done; 2 bad input, bad file, bad setting, bad argument; 3 a quality gate or an
audit failed; 1 anything else. Each group of commands is a module of `uic.jobs.commands`; nothing
heavy is imported before the command that needs it runs.
"""

import sys

import typer
from rich.markup import escape

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
from uic.jobs.config.console import ERR
from uic.models.errors import UicError

app = typer.Typer(
    name="uic",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One small learned memory per user: from the behaviour log to ranking.",
)
for _module in (
    demo,
    config,
    import_,
    simulate,
    store,
    check,
    samples,
    train,
    evaluate,
    bundle,
    images,
    memories,
    user,
    stream,
    events,
    dead_letters,
    log,
    drill,
    audit,
    doctor,
    replay,
    report,
    serve,
    experiment,
):
    _module.register(app)


def main() -> None:
    """Run `uic`; every `UicError` is one line on standard error and its exit status."""
    try:
        app()
    except UicError as error:
        ERR.print(f"[bold red]error:[/] {escape(' '.join(str(error).split()))}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
