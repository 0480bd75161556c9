"""What every drill may end with."""

from uic.models.errors import UicError


class DrillFailedError(UicError):
    """The system did not end as the log says; exit status 3."""

    exit_code = 3
