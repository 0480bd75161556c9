"""`uic images`: features of images, item vectors of a bundle, and which version is read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands import completion, item_versions
from uic.jobs.commands.options import (
    BEAM_SETTINGS,
    RunnerOption,
    shown_progress,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT, printable, working
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.jobs.workspace.images import ExtractedFeatures

app = typer.Typer(
    no_args_is_help=True,
    help="Images of items: extract features, embed them with a bundle, load and switch versions.",
)
item_versions.register_on(app)
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Weight file of VGG16 (torchvision's layout; .pth or .safetensors)."),
]
EncoderOption = Annotated[
    str | None, typer.Option(help="Name of a pretrained encoder; default: compact.")
]
_REJECTS_SHOWN = 20


@app.command()
@takes_workspace
def pretrain(
    folder: Annotated[Path, typer.Argument(help="Class folders of images.")],
    *,
    out: Annotated[str, typer.Option(help="Name of the encoder.")] = "compact",
    seed: Annotated[int, typer.Option(help="Of weights, split and order.")] = 1,
    workspace: Workspace,
) -> None:
    """Train a compact encoder on labelled images, for those without VGG16's weights.

    Its features are 4,096 numbers, too. A fifth of the images is held out and says how many
    classes it names rightly, beside always naming the commonest.
    """
    with shown_progress() as progress:
        made = workspace.images.pretrain(folder, out, seed=seed, progress=progress)
    metrics = made.trained.metrics
    OUT.print(f"encoder     {made.encoder.identity}", markup=False)
    OUT.print(f"sha256      {made.encoder.sha256}", markup=False)
    OUT.print(
        f"images      {metrics['images']:,} of {metrics['classes']} classes, "
        f"{metrics['held_out_images']:,} held out, {made.rejected:,} rejected"
    )
    if "held_out_accuracy" in metrics:
        OUT.print(
            f"accuracy    {metrics['held_out_accuracy']:.3f} held out "
            f"(always the commonest class: {metrics['commonest_class_accuracy']:.3f})"
        )


@app.command(context_settings=BEAM_SETTINGS)
@takes_workspace
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
    workspace: Workspace,
) -> None:
    """Make features of images, once per content; what is there already is not computed again.

    A file that cannot be used (not an image, truncated, too many pixels, outside of the folder, …)
    is listed with its reason, and the others go on. In a folder, `42.jpg` is the image of item 42.
    What follows `--` goes to Beam.
    """
    with working(f"extracting the images of {source}"):
        done = workspace.images.extract(
            source,
            out,
            root=root,
            weights=weights,
            encoder=encoder,
            runner=runner,
            beam_arguments=arguments.args,
        )
    _show_features(done)


def _show_features(features: "ExtractedFeatures") -> None:
    encoder, done = features.encoder, features.extracted
    OUT.print(f"encoder     {encoder.identity}", markup=False)
    OUT.print(f"weights     {features.weights.name}, sha256 {encoder.sha256}", markup=False)
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


@app.command(context_settings=BEAM_SETTINGS)
@takes_workspace
def embed(
    arguments: typer.Context,
    *,
    bundle: Annotated[
        str,
        typer.Option(
            help="Bundle whose image embedding is used: MODEL or MODEL/VERSION, or a path.",
            autocompletion=completion.bundles,
        ),
    ],
    images: Annotated[str, typer.Option(help="Name of the features (`uic images extract`).")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Number of the item version; default: the next.")
    ] = None,
    runner: RunnerOption = "DirectRunner",
    workspace: Workspace,
) -> None:
    """Embed the images of all items with a bundle: a new item version, in Parquet.

    Load it with `uic images load`, or with `feast materialize` (view item_image). Older versions of
    the model are removed from the workspace, but for what is read and images.versions_kept before;
    none while the store does not answer, which knows what is read.
    """
    with working(f"embedding {images}"):
        made = workspace.images.embed(
            bundle, images, version=version, runner=runner, beam_arguments=arguments.args
        )
    manifest = made.manifest
    OUT.print(
        f"item version {made.version}: {made.rows:,} items, {manifest['images']:,} images, by "
        f"{manifest['bundle']} ({made.bundle.hex()}) from {images} ({manifest['encoder']})",
        markup=False,
    )
    item_versions.remove_old(workspace)


@app.command()
@takes_workspace
def add(
    file: Annotated[Path, typer.Argument(help="The image.")],
    *,
    item: Annotated[str, typer.Option(help="Id of the item that shows it.")],
    images: Annotated[str, typer.Option(help="Name of the features to add it to.")],
    weights: WeightsOption = None,
    encoder: EncoderOption = None,
    workspace: Workspace,
) -> None:
    """Embed one new image and make it readable at once, in every item version of the store.

    A running service that has met the item without its image takes it up within
    serve.watch_seconds.
    """
    added = workspace.images.add(file, item, images, weights=weights, encoder=encoder)
    versions = ", ".join(str(number) for number in added.versions)
    OUT.print(
        f"item {printable(item)} shows {added.sha256[:16]}, readable now in item version {versions}"
        + ("" if added.encoded else " (its features were there already)"),
        markup=False,
    )
    for number, name in added.left_out.items():
        ERR.print(f"item version {number} is left out: its bundle {name} is not here", markup=False)
