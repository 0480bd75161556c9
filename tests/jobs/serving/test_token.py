"""The token of the settings: never empty, and without the line break of a file."""

import pytest
from pydantic import ValidationError

from uic.jobs.config.serve import ServeSettings


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_an_empty_token_is_refused(token: str):
    with pytest.raises(ValidationError, match="an empty token would let everyone in"):
        ServeSettings(token=token)


def test_a_token_from_a_mounted_file_loses_its_line_break():
    token = ServeSettings(token="secret\n").token
    assert token is not None
    assert token.get_secret_value() == "secret"
    assert ServeSettings().token is None
