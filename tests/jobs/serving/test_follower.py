"""The follower by itself: what probes find is swapped in, and an error ends nothing."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from tests.jobs.serving.counting import METRICS
from uic.jobs.serving.follow.follower import Follower, PointerProbe
from uic.jobs.serving.follow.loader import Loader
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import BadInputError


def scorer(version: str) -> SimpleNamespace:
    return SimpleNamespace(bundle=SimpleNamespace(version=version), label=f"mimn/{version}")


class Says:
    """A probe that says what it was given, look after look, and then nothing."""

    def __init__(self, name: str, *answers) -> None:
        self.name = name
        self.answers = list(answers)

    async def look(self, current):
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def follow(*probes) -> tuple[Follower, list[str]]:
    swapped: list[str] = []
    follower = Follower(scorer("0001"), lambda one: swapped.append(one.label), probes, 0.0)
    return follower, swapped


def test_a_failing_probe_leaves_the_others_alone_and_looks_again():
    follower, swapped = follow(
        Says("items", ZeroDivisionError("nobody expects it"), scorer("0003")),
        Says("bundle", scorer("0002")),
    )
    errors = asyncio.run(follower.look())
    assert {name: str(error) for name, error in errors.items()} == {"items": "nobody expects it"}
    assert swapped == ["mimn/0002"]
    assert asyncio.run(follower.look()) == {}
    assert swapped == ["mimn/0002", "mimn/0003"]
    assert follower.current.label == "mimn/0003"


def test_an_error_that_nobody_expects_does_not_end_the_following():
    follower, swapped = follow(Says("bundle", KeyError("hash"), scorer("0002")))

    async def until_swapped():
        task = asyncio.create_task(follower.run())
        while not swapped and not task.done():
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(until_swapped())
    assert swapped == ["mimn/0002"]


def test_the_same_error_is_logged_once_until_it_is_gone(caplog: pytest.LogCaptureFixture):
    away = [BadInputError("the store is away")] * 3
    follower, _ = follow(Says("generations", *away, None, away[0]))
    with caplog.at_level(logging.ERROR, "uic.serve"):
        for _ in range(5):
            asyncio.run(follower.look())
    assert [record.getMessage() for record in caplog.records] == [
        "mimn/0001: nothing was swapped after a look at the generations: the store is away"
    ] * 2


def test_a_bundle_that_cannot_be_loaded_is_tried_again_until_it_can(tmp_path):
    pointer = tmp_path / "CURRENT"
    pointer.write_text("0002\n")
    tries = []

    def load(path, now):
        tries.append((path, now.label))
        if len(tries) == 1:
            message = f"{path}: damaged"
            raise BadInputError(message)
        return scorer(path.name)

    follower, swapped = follow(PointerProbe(pointer, load, 0.0))
    assert list(asyncio.run(follower.look())) == ["bundle"]
    assert follower.pending is None
    assert asyncio.run(follower.look()) == {}
    assert asyncio.run(follower.look()) == {}  # it is served: nothing to do
    assert tries == [(tmp_path / "0002", "mimn/0001")] * 2
    assert swapped == ["mimn/0002"]


def test_how_long_ago_each_probe_looked_and_how_often_it_failed_is_told():
    probes = (Says("items", KeyError("files")), Says("bundle"))
    follower = Follower(scorer("0001"), lambda _: None, probes, 0.0, METRICS, "here")
    follower.looked = {"items": -1000.0, "bundle": -1000.0}
    asyncio.run(follower.look())
    assert follower.ages()["items"] > 900
    assert follower.ages()["bundle"] < 900
    assert METRICS.look_failures.labels("here", "items")._value.get() == 1
    assert METRICS.look_failures.labels("here", "bundle")._value.get() == 0
    asyncio.run(follower.look())
    assert follower.ages()["items"] < 900


def test_a_manifest_that_cannot_be_read_hides_no_other_bundle(tmp_path):
    for version, text in (("0001", "[]"), ("0002", "no json"), ("0003", '{"hash": "0708"}')):
        (tmp_path / "mimn" / version).mkdir(parents=True)
        (tmp_path / "mimn" / version / "manifest.json").write_text(text)
    loader = Loader(BundleShelf(tmp_path), None, None, None, None)
    assert loader.path_of(b"\x07\x08") == tmp_path / "mimn" / "0003"
