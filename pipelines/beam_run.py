"""Runs a Beam pipeline and turns a worker's error into ours.

A worker's exception reaches the launcher as the text of a traceback, wrapped in whatever the
runner raises. If it was one of `UicError`'s, it is raised again as itself, so that a command ends
with one line and the right status.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner

from uic.models.errors import BadInputError, UicError

# The runners' word for "this failed because of your code": `[while running 'Step']`.
_STEP: Final = re.compile(r"\s*\[while running .*$")


class PipelineOptionsError(BadInputError):
    """A runner or an option of Beam is not known."""


def pipeline_options(runner: str, arguments: Sequence[str] = ()) -> PipelineOptions:
    """Options for `runner` with a command line's further `--name=value` arguments.

    Raises:
        PipelineOptionsError: there is no such runner, or an argument is not an option of Beam.
    """
    options = PipelineOptions([*arguments, f"--runner={runner}"])
    try:
        with _quiet_runner():
            known = options.get_all_options()
            create_runner(runner)
    except SystemExit as error:  # argparse ends the process on a bad value
        msg = f"Beam options {' '.join(arguments)!r}: not understood; see Beam's runner pages"
        raise PipelineOptionsError(msg) from error
    except (ValueError, ImportError, AttributeError) as error:
        msg = f"--runner: found {runner!r}: {' '.join(str(error).split())}"
        raise PipelineOptionsError(msg) from error
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0]
        if not argument.startswith("--") or name not in known:
            msg = f"Beam option {argument!r}: no such option; give options as --name=value"
            raise PipelineOptionsError(msg)
    return options


def run_pipeline(build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> None:
    """Build a pipeline, run it and wait for its end.

    Raises:
        UicError: a worker raised it, on whatever runner.
    """
    try:
        with _quiet_runner(), beam.Pipeline(options=options) as pipeline:
            build(pipeline)
    except UicError as error:
        # The local runner raises the worker's own exception, with the step added to its text.
        raise type(error)(_STEP.sub("", str(error))) from error
    except Exception as error:
        ours = worker_error(str(error))
        if ours is None:
            raise
        raise ours from error


def publish_together(
    pipeline: beam.Pipeline, collections: Sequence[Any], publish: Callable[..., Any]
) -> None:
    """The last step: call `publish` with a list of the values of each collection, also of none.

    A runner may call it twice.
    """

    def step(element: tuple[None, Iterable[tuple[int, Any]]]) -> None:
        values: list[list[Any]] = [[] for _ in collections]
        for number, value in element[1]:
            if number >= 0:
                values[number].append(value)
        publish(*values)

    numbered = [
        collection
        | f"Number{number}" >> beam.Map(lambda value, number=number: (None, (number, value)))
        for number, collection in enumerate(collections)
    ]
    begin = pipeline | "Begin" >> beam.Create([(None, (-1, None))])
    together = (*numbered, begin) | "Everything" >> beam.Flatten()
    _ = together | "Together" >> beam.GroupByKey() | "Publish" >> beam.Map(step)


def worker_error(text: str) -> UicError | None:
    """The last `UicError` in a traceback's text; None if there is none."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _kinds(UicError)}
    for line in reversed(text.splitlines()):
        name, colon, message = line.strip().partition(": ")
        if colon and name in kinds:
            return kinds[name](_STEP.sub("", message))
    return None


def _kinds(kind: type[UicError]) -> Iterator[type[UicError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


@contextmanager
def _quiet_runner() -> Iterator[None]:
    """The local runner logs a failing step's traceback, which the raised error has anyway."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
