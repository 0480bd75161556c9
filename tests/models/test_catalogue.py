"""Rankers from outside: registered by a script, or found as an entry point of a package."""

import pytest

from uic.models.errors import BadInputError
from uic.models.rankers import catalogue
from uic.models.rankers.catalogue import (
    MODELS,
    ModelKind,
    UnknownModelError,
    model_kind,
    register_ranker,
)

MINE = ModelKind("Mine", MODELS["din"].settings, MODELS["din"].build)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The catalogue as it was, after each test."""
    monkeypatch.setattr(catalogue, "MODELS", dict(MODELS))


def test_a_registered_ranker_is_found_by_its_name():
    register_ranker("mine", MINE)
    register_ranker("mine", MINE)  # a module that is imported twice
    assert model_kind("mine") is MINE


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(BadInputError, match=r"'din' is known already \(DIN\)"):
        register_ranker("din", MINE)


def test_an_entry_point_of_an_installed_package_is_found(tmp_path, monkeypatch):
    package = tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[uic.rankers]\ntheirs = theirs_rankers:KIND\n")
    (tmp_path / "theirs_rankers.py").write_text(
        "from uic.models.rankers.catalogue import MODELS, ModelKind\n"
        "KIND = ModelKind('Theirs', MODELS['din'].settings, MODELS['din'].build)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert model_kind("theirs").title == "Theirs"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownModelError, match=r"'mime' is unknown; known: .*mimn"):
        model_kind("mime")
