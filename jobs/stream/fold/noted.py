"""Which columns of events an epoch has: those that the site declares, and those that bundles read.

They are noted before anything is read, in `epochs.json`, so that a later fold of the log knows what
the stream has seen (`uic.pipelines.log.epochs.NotedColumn`).
"""

from collections.abc import Sequence

from uic.jobs.config.context import Context
from uic.models.features.event_columns import EventColumn, event_columns
from uic.models.features.feature_file import load_features
from uic.pipelines.log.epochs import Epoch, EventColumnError, NotedColumn
from uic.pipelines.log.event_log import EventLog


def note_declared(context: Context, epoch: Epoch, read: Sequence[EventColumn] = ()) -> Epoch:
    """The epoch with the columns of `features.yaml`, and with those that a bundle reads.

    A bundle's column is read from the field that the epoch or the file says; only if neither knows
    it, from the one that it was trained with.

    Args:
        context: of the workspace.
        epoch: a topic's, that the log has.
        read: by a bundle.

    Raises:
        FeatureFileError: `features.yaml` is none.
        EventColumnError: a column is of another kind in the log, or read from another field.
        LogBusyError: there is something to note, and another process writes to the log.
    """
    log = EventLog(context.log)
    declared = _declared(context)
    known = {column.name for column in declared} | {one.column.name for one in epoch.columns}
    wanted = [*declared, *(column for column in read if column.name not in known)]
    epoch = log.note_columns(epoch.number, wanted)
    noted = {one.column.name: one.column for one in epoch.columns}
    for column in read:
        if noted[column.name].kind is not column.kind:
            msg = (
                f"event.{column.name}: the bundle reads it as {column.kind.value}, epoch "
                f"{epoch.number} ({epoch.name}) has it as {noted[column.name].kind.value}; train "
                "with the feature as the log has it"
            )
            raise EventColumnError(msg)
    return epoch


def noted_as_read(epoch: Epoch, read: Sequence[EventColumn]) -> tuple[NotedColumn, ...]:
    """What an epoch says of the columns that a bundle reads, in the bundle's order."""
    noted = {one.column.name: one for one in epoch.columns}
    return tuple(noted[column.name] for column in read)


def _declared(context: Context) -> tuple[EventColumn, ...]:
    return event_columns(load_features(context.features)) if context.features.is_file() else ()
