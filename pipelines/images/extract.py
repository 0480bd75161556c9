"""Features of images, once per content, as a Beam pipeline.

1. Read: each file's bytes are summed; one that the ledger knows unchanged is not read.
2. Contents without features go to buckets by their sum, each content once.
3. Encode: a bucket's images are decoded, encoded `batch_images` at a time, and written as a block.
4. Publish, beside what is there: the new blocks in order of their sums, which item shows which
   image, and the ledger's new lines with every reject and its reason.

Features and items amend what the directory holds; an item that is named again shows its newer
image. A run that finds nothing new publishes nothing.
"""

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apache_beam as beam

from uic.models.errors import BadInputError
from uic.models.images.features import ImageFeatures, ImageFeaturesError
from uic.models.published import MANIFEST_NAME, lock_of, only_writer
from uic.pipelines.beam_run import pipeline_options, publish_together, run_pipeline
from uic.pipelines.images.extract_run import OUTCOME, ExtractRequest, ExtractRun, Known
from uic.pipelines.images.ledger import FileLine, Ledger
from uic.pipelines.overlapped import OverlappedMap

_READ_IMAGES: Final = 256


class ImagesBusyError(BadInputError):
    """Another run writes the same image features."""


@dataclass(frozen=True)
class Extracted:
    """What a run did.

    Attributes:
        features: what is published now.
        seen: images of the source.
        encoded: contents that went through the encoder in this run.
        known: images of the source whose features were there already.
        rejected: lines of this source without features.
        published: False if there was nothing new.
    """

    features: ImageFeatures
    seen: int
    encoded: int
    known: int
    rejected: tuple[FileLine, ...]
    published: bool


def extract_images(
    request: ExtractRequest, runner: str = "DirectRunner", beam_arguments: Sequence[str] = ()
) -> Extracted:
    """Extract what is new and publish it.

    Raises:
        ImageFeaturesError: the directory holds features of another encoder.
        ImagesBusyError: another run writes to it.
        BadInputError: the encoder cannot be loaded, or a Beam option is wrong.
    """
    options = pipeline_options(runner, beam_arguments)
    request.output.mkdir(parents=True, exist_ok=True)
    msg = f"{request.output}: another run writes these features; wait for it or give another --out"
    with only_writer(lock_of(request.output), ImagesBusyError(msg)):
        before = published_features(request.output)
        _check_encoder(request, before)
        # Beside the output: a publication removes what its manifest does not name.
        drafts = request.output.parent / f".{request.output.name}.{uuid.uuid4().hex}"
        drafts.mkdir()
        run = ExtractRun(request, _known(request, before), drafts)
        try:
            run_pipeline(lambda pipeline: _build(pipeline, run), options)
            outcome = json.loads((drafts / OUTCOME).read_text(encoding="utf-8"))
        finally:
            shutil.rmtree(drafts, ignore_errors=True)
    rejected = tuple(FileLine(**line) for line in outcome.pop("rejected"))
    return Extracted(ImageFeatures.open(request.output), rejected=rejected, **outcome)


def published_features(path: Path) -> ImageFeatures | None:
    """What a directory holds; None if nothing was published there yet."""
    return ImageFeatures.open(path) if (path / MANIFEST_NAME).exists() else None


def _check_encoder(request: ExtractRequest, before: ImageFeatures | None) -> None:
    encoder = request.choice.load()
    if before is not None and before.encoder != encoder.identity:
        msg = (
            f"{request.output}: holds features of encoder {before.encoder}, this run's is "
            f"{encoder.identity}; give another --out, or the same encoder"
        )
        raise ImageFeaturesError(msg)


def _known(request: ExtractRequest, before: ImageFeatures | None) -> Known:
    """What earlier runs found out; reasons only if files may cost what they might then."""
    if before is None:
        return Known(frozenset(), {}, {})
    ledger = Ledger.of(before)
    same = before.manifest.get("limits") == request.choice.settings.limits()
    return Known(
        frozenset(before.sha256),
        ledger.of_folder(request.source.folder),
        ledger.bad_contents() if same else {},
    )


def _build(pipeline: beam.Pipeline, run: ExtractRun) -> None:
    images = list(enumerate(run.request.source.images))
    parts = [images[at : at + _READ_IMAGES] for at in range(0, len(images), _READ_IMAGES)]
    read = (
        pipeline
        | "Images" >> beam.Create(parts)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(OverlappedMap(run.read))
    )
    blocks = (
        read
        | "New" >> beam.FlatMap(run.wanted).with_output_types(tuple[int, tuple[str, str]])
        | "ByBucket" >> beam.GroupByKey()
        | "Encode" >> beam.ParDo(OverlappedMap(run.encode))
    )
    publish_together(pipeline, [read, blocks], run.publish)
