"""The features that answers were given with, from the service's log to a model's head."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.bundles.bundle import Bundle
from uic.models.features.definition import Feature, Kind
from uic.models.features.raw import RawValues, missing_values
from uic.models.records.record import Records, parts_view
from uic.models.state.named import named_features
from uic.models.state.part import Asked

_KEY = Feature(type=Kind.CATEGORICAL)


def logged_features(
    bundle: Bundle, texts: Sequence[str | None], sizes: NDArray[np.int64]
) -> Tensor | None:
    """What a bundle's head saw beside ids.

    Args:
        bundle: that scored.
        texts: (answers,), the column `features`: raw values by key; None for none.
        sizes: (answers,), candidates of each.

    Returns:
        (candidates, width), answer after answer; None for a bundle without features.
    """
    embedding = bundle.model.feature_embedding
    if embedding is None:
        return None
    answers = [json.loads(text or "{}") for text in texts]
    parts = []
    for fitted in bundle.vocabulary.features.fitted:
        given = [answer.get(fitted.named.key) for answer in answers]
        values: Any = np.concatenate(
            [
                raw_of_answer(fitted.feature, one, size)
                for one, size in zip(given, sizes.tolist(), strict=True)
            ]
        )
        parts.append(embedding.part(fitted, torch.from_numpy(fitted.encode(values))))
    return torch.cat(parts, dim=1)


def raw_of_answer(feature: Feature, given: list[Any] | None, size: int) -> RawValues:
    """Raw values of an answer's candidates, of one value or of one a candidate.

    Args:
        feature: whose.
        given: as the service's log has them; None for none.
        size: candidates.

    Returns:
        (size,), or (size, width) of lists.
    """
    if given is None:
        return missing_values(feature, size)
    number = np.int64 if feature.categorical else np.float32  # a null becomes NaN
    values = np.array(given, number)
    repeats = 1 if len(values) == size else size
    repeated: Any = np.repeat(values, repeats, axis=0)
    raw: RawValues = repeated
    return raw


def state_of_answers(
    bundle: Bundle,
    expected: Records,
    asked: Asked,
    answers: pa.Table,
    sizes: NDArray[np.int64],
) -> tuple[list[str | None], int]:
    """The answers' features, with what the log says of the record's parts in place of the logged.

    These are functions of the record and of the moment alone, so they are compared exactly, and a
    probability is computed again with those of the log.

    Args:
        bundle: that scored.
        expected: (answers, record bytes), by the log.
        asked: the candidates, answer after answer.
        answers: of the service's log.
        sizes: (answers,), candidates of each.

    Returns:
        The features, and how many features of answers are not what was logged.
    """
    texts: list[str | None] = answers.column("features").to_pylist()
    if bundle.state is None:
        return texts, 0
    logged = [json.loads(text or "{}") for text in texts]
    keys = {
        name: np.concatenate(
            [
                raw_of_answer(_KEY, one.get(f"item.{name}"), size)
                for one, size in zip(logged, sizes.tolist(), strict=True)
            ]
        ).astype(np.int64)
        for name in bundle.state.reads
    }
    states = np.ascontiguousarray(parts_view(expected, bundle.state.bytes))
    found = bundle.state.features(states, replace(asked, columns=keys))
    ends = np.cumsum(sizes).tolist()
    differing = 0
    for answer, end, size in zip(logged, ends, sizes.tolist(), strict=True):
        for at, named in enumerate(named_features(bundle.state)):
            own = found[end - size : end, at].astype(object)
            own[np.isnan(found[end - size : end, at])] = None
            differing += answer.get(named.key) != own.tolist()
            answer[named.key] = own.tolist()
    return [json.dumps(answer) for answer in logged], differing
