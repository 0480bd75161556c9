"""Base of every section of `uic.yaml`.

A section is one frozen pydantic model, lives in the `settings.py` of the package that it
configures, and refuses unknown keys. The description of each field gives its unit, so that
`uic config show` is the manual.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of `uic.yaml`: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
