"""Images of items: encoders, features, and item versions made of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.item_versions import ItemVersionsPanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.snapshots.item_images import ItemImages
    from uic.models.images.encoder import ImageEncoder
    from uic.models.images.features import ImageFeatures
    from uic.models.images.pretraining import Pretrained
    from uic.pipelines.images.add import AddedImage
    from uic.pipelines.images.encoders import EncoderChoice
    from uic.pipelines.images.extract import Extracted

ENCODERS = "image_encoders"


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder that was trained on labelled images.

    Attributes:
        encoder: as saved, with identity and sum.
        trained: its metrics.
        rejected: images that could not be used.
    """

    encoder: "ImageEncoder"
    trained: "Pretrained"
    rejected: int


@dataclass(frozen=True)
class ExtractedFeatures:
    """Features of images, and the encoder that made them."""

    encoder: "ImageEncoder"
    weights: Path
    extracted: "Extracted"


class ImagesPanel(ItemVersionsPanel):
    """Methods of `Workspace.images`."""

    def pretrain(
        self,
        folder: str | Path,
        name: str = "compact",
        *,
        seed: int = 1,
        progress: Progress | None = None,
    ) -> PretrainedEncoder:
        """Train a compact encoder on class folders of images.

        Args:
            folder: one folder a class.
            name: of the encoder.
            seed: of weights, split and order.
            progress: told the epochs.

        Raises:
            BadInputError: too few images or classes.
        """
        from uic.models.images.pretraining import pretrain, save_encoder
        from uic.pipelines.images.labelled import labelled_images

        settings = self.config.images
        images = labelled_images(Path(folder), settings)
        report = progress or no_progress
        total = settings.pretrain.epochs
        trained = pretrain(
            images.pixels,
            images.labels,
            settings.pretrain,
            seed,
            lambda done, _: report("epochs", done, total),
        )
        path = self.path / ENCODERS / name
        encoder = save_encoder(path, trained, images.classes, settings.pretrain, seed)
        return PretrainedEncoder(encoder, trained, images.rejected)

    def extract(
        self,
        source: str | Path,
        name: str,
        *,
        root: str | Path | None = None,
        weights: str | Path | None = None,
        encoder: str | None = None,
        runner: str = "DirectRunner",
        beam_arguments: Sequence[str] = (),
    ) -> ExtractedFeatures:
        """Extract features of images that are new; those that are known are kept.

        Args:
            source: folder of images, or manifest (.csv, .parquet: item_id, path).
            name: of the features, a folder of `images/`.
            root: folder that a manifest's paths start from; None: the manifest's own.
            weights: weight file of VGG16; None: a pretrained encoder.
            encoder: name of a pretrained encoder; None: compact.
            runner: of Beam.
            beam_arguments: for Beam.

        Raises:
            BadInputError: the source or the encoder cannot be used. A bad image is rejected, and
                the others go on.
        """
        from uic.pipelines.images.extract import extract_images
        from uic.pipelines.images.extract_run import ExtractRequest
        from uic.pipelines.images.sources import ImageSource

        choice = self._encoder(weights, encoder)
        listed = ImageSource.open(Path(source), None if root is None else Path(root), self.ids)
        request = ExtractRequest(listed, self.context.images / name, choice)
        loaded = choice.load()
        return ExtractedFeatures(
            loaded, choice.path, extract_images(request, runner, beam_arguments)
        )

    def embed(
        self,
        bundle: str,
        images: str,
        *,
        version: int | None = None,
        runner: str = "DirectRunner",
        beam_arguments: Sequence[str] = (),
    ) -> "ItemImages":
        """Embed the images of all items with a bundle: a new item version, in Parquet.

        Args:
            bundle: whose image embedding is used: a path, model/version, or model.
            images: name of the features.
            version: number of the item version; None: the next.
            runner: of Beam.
            beam_arguments: for Beam.

        Raises:
            BadInputError: no such bundle or features, or they do not fit each other.
        """
        from uic.feature_repo.snapshots.item_images import ITEM_IMAGES_FOLDER
        from uic.models.bundles.shelf import BundleShelf
        from uic.pipelines.images.embed import EmbedRequest, embed_item_images, next_version

        folder = self.path / ITEM_IMAGES_FOLDER
        number = version or next_version(folder, self._numbers_in_store())
        request = EmbedRequest(
            features=self._features(images),
            bundle=BundleShelf(self.context.bundles).find(bundle),
            output=folder / f"version={number:03d}",
            version=number,
            now_ms=time.time_ns() // 1_000_000,
        )
        return embed_item_images(request, runner, beam_arguments)

    def add(
        self,
        file: str | Path,
        item: int | str,
        images: str,
        *,
        weights: str | Path | None = None,
        encoder: str | None = None,
    ) -> "AddedImage":
        """Embed one new image and make it readable at once, in every item version of the store.

        Args:
            file: the image.
            item: id of the item that shows it, as the log's own system has it.
            images: name of the features to add it to.
            weights: as in `extract`.
            encoder: as in `extract`.

        Raises:
            BadInputError: the file is no image that can be used, or there are no such features.
            StoreError: the store does not answer.
        """
        from uic.jobs.checks.user_view import find_bundle
        from uic.pipelines.images.add import add_image

        choice = self._encoder(weights, encoder)
        path = self._features(images)
        item_id = self.ids.number("item", item)
        with self._items_to_write() as store:
            return add_image(
                Path(file),
                item_id,
                path,
                choice=choice,
                store=store,
                bundle_of=partial(find_bundle, self.context.bundles),
                now_ms=time.time_ns() // 1_000_000,
            )

    def features(self) -> "dict[str, ImageFeatures]":
        """Image features of the workspace, by name."""
        from uic.models.images.features import ImageFeatures

        paths = sorted(path.parent for path in self.context.images.glob("*/manifest.json"))
        return {path.name: ImageFeatures.open(path) for path in paths}

    def _encoder(self, weights: str | Path | None, encoder: str | None) -> "EncoderChoice":
        from uic.pipelines.images.encoders import EncoderChoice

        file = None if weights is None else Path(weights)
        return EncoderChoice.of(file, encoder, self.path / ENCODERS, self.config.images)

    def _features(self, name: str) -> Path:
        path = self.context.images / name
        if not (path / "manifest.json").exists():
            published = self.context.images.glob("*/manifest.json")
            known = ", ".join(sorted(manifest.parent.name for manifest in published))
            msg = (
                f"{path}: no such image features (there is: {known or 'none'}); make them with "
                "`uic images extract`"
            )
            raise BadInputError(msg)
        return path

    def _numbers_in_store(self) -> list[int]:
        """Numbers that are taken; a store that is away takes none."""
        from uic.feature_repo.store.errors import StoreError

        try:
            return [version.number for version in self.stored_versions()]
        except StoreError:
            return []
