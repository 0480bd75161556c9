"""Base of every section of `uic.yaml`.

A section is one frozen pydantic model, lives in the `settings.py` of the package that it
configures, and refuses unknown keys. The description of each field gives its unit, so that
`uic config show` is the manual. A field that hardly a site sets (retries, batch sizes, facts of a
weight file) is marked `json_schema_extra=ADVANCED`: `uic config show` leaves it out at its default
value, `uic config show --all` prints it.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic.types import JsonValue

ADVANCED: Final[dict[str, JsonValue]] = {"advanced": True}


class Section(BaseModel):
    """One section of `uic.yaml`: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def is_advanced(field: FieldInfo) -> bool:
    """Whether hardly a site sets this field."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("advanced"))
