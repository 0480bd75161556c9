"""What a shell offers at Tab for a name: bundles, samples and generations of the workspace.

`uic --install-completion` sets a shell up. The workspace is the one that the line has named so
far, `UIC_WORKSPACE`, or `var`; nothing is opened but its folders.
"""

from pathlib import Path

import typer

from uic.jobs.config.context import DEFAULT_WORKSPACE
from uic.models.published import MANIFEST_NAME


def bundles(context: typer.Context, incomplete: str) -> list[str]:
    """Models, and their versions as MODEL/VERSION."""
    versions = _published(_workspace(context) / "bundles", "*/*")
    models = {name.partition("/")[0] for name in versions}
    return _beginning(sorted({*models, *versions}), incomplete)


def samples(context: typer.Context, incomplete: str) -> list[str]:
    """Names of samples."""
    return _beginning(_published(_workspace(context) / "samples", "*"), incomplete)


def generations(context: typer.Context, incomplete: str) -> list[str]:
    """Numbers of generations that have a snapshot here."""
    found = _published(_workspace(context) / "memories", "generation=*/dt=*")
    numbers = {int(path.split("=")[1].split("/")[0]) for path in found}
    return _beginning([str(number) for number in sorted(numbers)], incomplete)


def _published(root: Path, pattern: str) -> list[str]:
    found = sorted(root.glob(f"{pattern}/{MANIFEST_NAME}"))
    return [str(path.parent.relative_to(root)) for path in found]


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _workspace(context: typer.Context) -> Path:
    return Path(context.params.get("workspace") or DEFAULT_WORKSPACE)
