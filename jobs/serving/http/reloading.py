"""`uic serve reload`: choose a bundle and wait until a running service has swapped to it."""

import json
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import UicError

_POLL_SECONDS: Final = 0.2
# Answers in a row, since each may come from another worker.
_AGREEING: Final = 8


class ReloadError(UicError):
    """The service does not answer, or does not serve the bundle in time."""


def reload_service(
    bundles: Path, reference: str | None, url: str, token: str | None, wait_seconds: float
) -> str:
    """Choose `reference` (`model/version`), wait; the label that is served then.

    Raises:
        BundleError: no such bundle.
        ReloadError: no service at `url`, or it served something else for `wait_seconds`.
    """
    shelf = BundleShelf(bundles)
    if reference is not None:
        path = shelf.find(reference)
        shelf.choose(path.parent.name, path.name)
        wanted = f"{path.parent.name}/{path.name}"
    else:
        model = str(_status(url, token)["bundle"]).partition("/")[0]
        wanted = f"{model}/{shelf.current(model)}"
    deadline = time.monotonic() + wait_seconds
    agreeing = 0
    while agreeing < _AGREEING:
        status = _status(url, token)
        agreeing = agreeing + 1 if status["bundle"] == wanted else 0
        if time.monotonic() > deadline:
            msg = (
                f"{url}: serves {status['bundle']}, expected {wanted} within {wait_seconds:g} s; "
                "see the service's log (a service of one MODEL/VERSION does not follow CURRENT)"
            )
            raise ReloadError(msg)
        if not agreeing:
            time.sleep(_POLL_SECONDS)
    return wanted


def _status(url: str, token: str | None) -> dict[str, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{url}/readyz", headers=headers)  # noqa: S310 - the user's own address
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            status: dict[str, Any] = json.load(answer)
            return status
    except (OSError, ValueError) as error:
        msg = (
            f"{url}: no ranking service answers ({error}); start it with `uic serve`, or give --url"
        )
        raise ReloadError(msg) from error
