"""Options of a protocol that is not asked for are refused, and do not vanish."""

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.models.errors import BadInputError


@pytest.mark.parametrize(
    ("option", "value"),
    [("--targets", "buy"), ("--min-history", "3"), ("--negatives-within", "2"), ("--seed", "7")],
)
def test_an_option_without_its_protocol_is_refused(option, value, tmp_path):
    words = ["samples", "--first", "2025-03-03", "--last", "2025-03-06", option, value]
    with pytest.raises(BadInputError, match=f"^{option}: is of --protocol next-item; add it, or"):
        CliRunner().invoke(app, [*words, "-w", str(tmp_path)], catch_exceptions=False)
