"""`uic images`: features of images, item vectors of a bundle, and which version is read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands import item_versions
from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.models.bundles.bundle import Bundle
    from uic.pipelines.images.encoders import EncoderChoice

app = typer.Typer(
    no_args_is_help=True,
    help="Images of items: extract features, embed them with a bundle, load and switch versions.",
)
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Weight file of VGG16 (torchvision's layout; .pth or .safetensors)."),
]
EncoderOption = Annotated[
    str | None, typer.Option(help="Name of a pretrained encoder; default: compact.")
]
RunnerOption = Annotated[
    str, typer.Option(help="Beam runner: DirectRunner, FlinkRunner, PortableRunner, …")
]
_BEAM = {"allow_extra_args": True, "ignore_unknown_options": False}
_REJECTS_SHOWN = 20
ENCODERS = "image_encoders"


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    item_versions.register_on(app)
    root.add_typer(app, name="images")


@app.command()
def pretrain(
    folder: Annotated[Path, typer.Argument(help="Class folders of images.")],
    *,
    out: Annotated[str, typer.Option(help="Name of the encoder.")] = "compact",
    seed: Annotated[int, typer.Option(help="Of weights, split and order.")] = 1,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Train a compact encoder on labelled images, for those without VGG16's weights.

    Its features are 4,096 numbers, too. A fifth of the images is held out and says how many
    classes it names rightly, beside always naming the commonest.
    """
    context = open_context(workspace, config)

    from uic.models.images.pretraining import pretrain as train
    from uic.models.images.pretraining import save_encoder
    from uic.pipelines.images.labelled import labelled_images

    settings = context.config.images
    images = labelled_images(folder, settings)
    with progress_display() as progress:
        task = progress.add_task("epochs", total=settings.pretrain.epochs)
        trained = train(
            images.pixels,
            images.labels,
            settings.pretrain,
            seed,
            lambda done, _: progress.update(task, completed=done),
        )
    path = context.workspace / ENCODERS / out
    encoder = save_encoder(path, trained, images.classes, settings.pretrain, seed)
    metrics = trained.metrics
    OUT.print(f"encoder     {encoder.identity}", markup=False)
    OUT.print(f"sha256      {encoder.sha256}", markup=False)
    OUT.print(
        f"images      {metrics['images']:,} of {metrics['classes']} classes, "
        f"{metrics['held_out_images']:,} held out, {images.rejected:,} rejected"
    )
    if "held_out_accuracy" in metrics:
        OUT.print(
            f"accuracy    {metrics['held_out_accuracy']:.3f} held out "
            f"(always the commonest class: {metrics['commonest_class_accuracy']:.3f})"
        )


@app.command(context_settings=_BEAM)
def extract(
    arguments: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="Folder of images, or manifest (.csv, .parquet: item_id, path).")
    ],
    *,
    out: Annotated[str, typer.Option(help="Name of the features in WORKSPACE/images.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder that a manifest's paths start from; default: its.")
    ] = None,
    weights: WeightsOption = None,
    encoder: EncoderOption = None,
    runner: RunnerOption = "DirectRunner",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Make features of images, once per content; what is there already is not computed again.

    A file that cannot be used (not an image, truncated, too many pixels, outside of the folder, …)
    is listed with its reason, and the others go on. In a folder, `42.jpg` is the image of item 42.
    What follows `--` goes to Beam.
    """
    context = open_context(workspace, config)
    choice = _choice(context, weights, encoder)

    from uic.pipelines.images.extract import extract_images
    from uic.pipelines.images.extract_run import ExtractRequest
    from uic.pipelines.images.sources import ImageSource

    request = ExtractRequest(ImageSource.open(source, root), context.images / out, choice)
    loaded = choice.load()
    OUT.print(f"encoder     {loaded.identity}", markup=False)
    OUT.print(f"weights     {choice.path.name}, sha256 {loaded.sha256}", markup=False)
    with ERR.status(f"extracting {len(request.source.images):,} images"):
        done = extract_images(request, runner, arguments.args)
    OUT.print(
        f"images      {done.seen:,} listed, {done.encoded:,} new, {done.known:,} known already, "
        f"{len(done.rejected):,} rejected"
    )
    OUT.print(
        f"features    {len(done.features):,} images of {len(done.features.item_ids):,} items in "
        f"{done.features.path}" + ("" if done.published else ", unchanged"),
        markup=False,
    )
    for line in done.rejected[:_REJECTS_SHOWN]:
        ERR.print(f"rejected {line.path}: {line.reason}: {line.detail}", markup=False)
    if len(done.rejected) > _REJECTS_SHOWN:
        rest = len(done.rejected) - _REJECTS_SHOWN
        ERR.print(f"… and {rest:,} more: see files-*.parquet in {done.features.path}", markup=False)


@app.command(context_settings=_BEAM)
def embed(
    arguments: typer.Context,
    *,
    bundle: Annotated[
        str,
        typer.Option(
            help="Bundle whose image embedding is used: MODEL or MODEL/VERSION, or a path."
        ),
    ],
    images: Annotated[str, typer.Option(help="Name of the features (`uic images extract`).")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Number of the item version; default: the next.")
    ] = None,
    runner: RunnerOption = "DirectRunner",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Embed the images of all items with a bundle: a new item version, in Parquet.

    Load it with `uic images load`, or with `feast materialize` (view item_image). Older versions of
    the model are removed from the workspace, but for what is read and images.versions_kept before;
    none while the store does not answer, which knows what is read.
    """
    context = open_context(workspace, config)

    import time

    from uic.feature_repo.snapshots.item_images import ITEM_IMAGES_FOLDER
    from uic.models.bundles.shelf import BundleShelf
    from uic.pipelines.images.embed import EmbedRequest, embed_item_images, next_version

    folder = context.workspace / ITEM_IMAGES_FOLDER
    number = version or next_version(folder, _versions_in_store(context))
    request = EmbedRequest(
        features=_features(context, images),
        bundle=BundleShelf(context.bundles).find(bundle),
        output=folder / f"version={number:03d}",
        version=number,
        now_ms=time.time_ns() // 1_000_000,
    )
    with ERR.status(f"embedding {images}"):
        made = embed_item_images(request, runner, arguments.args)
    manifest = made.manifest
    OUT.print(
        f"item version {made.version}: {made.rows:,} items, {manifest['images']:,} images, by "
        f"{manifest['bundle']} ({made.bundle.hex()}) from {images} ({manifest['encoder']})",
        markup=False,
    )
    item_versions.remove_old(context)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="The image.")],
    *,
    item: Annotated[int, typer.Option(min=0, help="Id of the item that shows it.")],
    images: Annotated[str, typer.Option(help="Name of the features to add it to.")],
    weights: WeightsOption = None,
    encoder: EncoderOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Embed one new image and make it readable at once, in every item version of the store.

    A running service that has met the item without its image takes it up within
    serve.watch_seconds.
    """
    context = open_context(workspace, config)
    choice = _choice(context, weights, encoder)

    import time

    from uic.feature_repo.store.item_store import open_item_store
    from uic.pipelines.images.add import add_image

    path = _features(context, images)
    with open_item_store(context.config.store, context.workspace) as store:
        added = add_image(
            file,
            item,
            path,
            choice=choice,
            store=store,
            bundle_of=lambda hash8: _bundle_of(context, hash8),
            now_ms=time.time_ns() // 1_000_000,
        )
    versions = ", ".join(str(number) for number in added.versions)
    OUT.print(
        f"item {item} shows {added.sha256[:16]}, readable now in item version {versions}"
        + ("" if added.encoded else " (its features were there already)"),
        markup=False,
    )
    for number, name in added.left_out.items():
        ERR.print(f"item version {number} is left out: its bundle {name} is not here", markup=False)


def _choice(context: Context, weights: Path | None, encoder: str | None) -> "EncoderChoice":
    from uic.pipelines.images.encoders import EncoderChoice

    settings = context.config.images
    return EncoderChoice.of(weights, encoder, context.workspace / ENCODERS, settings)


def _features(context: Context, name: str) -> Path:
    path = context.images / name
    if not (path / "manifest.json").exists():
        known = ", ".join(
            sorted(found.parent.name for found in context.images.glob("*/manifest.json"))
        )
        msg = (
            f"{path}: no such image features (there is: {known or 'none'}); make them with "
            "`uic images extract`"
        )
        raise BadInputError(msg)
    return path


def _versions_in_store(context: Context) -> list[int]:
    """Numbers that are taken; a store that is away takes none."""
    from uic.feature_repo.store.errors import StoreError
    from uic.feature_repo.store.item_store import open_item_store

    try:
        with open_item_store(context.config.store, context.workspace) as store:
            return [version.number for version in store.versions.all()]
    except StoreError:
        return []


def _bundle_of(context: Context, hash8: bytes) -> "Bundle | None":
    """The bundle of this hash in the workspace."""
    from uic.models.bundles.bundle import load_bundle, read_bundle_manifest
    from uic.models.bundles.shelf import BundleShelf

    shelf = BundleShelf(context.bundles)
    for model in shelf.models():
        for name in shelf.versions(model):
            path = shelf.path(model, name)
            if bytes.fromhex(read_bundle_manifest(path)["hash"]).startswith(hash8):
                return load_bundle(path)
    return None
