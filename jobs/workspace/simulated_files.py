"""What `Workspace.simulate` reads and writes beside the log: photographs, sale days."""

from pathlib import Path
from typing import TYPE_CHECKING

from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.pipelines.simulator.item_images import Photographs
    from uic.pipelines.simulator.plan import SimulationPlan

SALE_DAYS_NAME = "simulated_sale_days.yaml"


def photographs_in(folder: Path) -> "Photographs":
    """Photographs in folders of classes.

    Raises:
        BadInputError: there is no such folder, or nothing in it that can be shown.
    """
    from uic.pipelines.images.sources import ImageSource
    from uic.pipelines.simulator.item_images import Photographs

    if not folder.is_dir():
        msg = f"--images {folder}: not a folder; expected folders of photographs, one a class"
        raise BadInputError(msg)
    listed = ImageSource.open(folder).images
    return Photographs.of(((image.path, image.label) for image in listed), folder)


def write_item_images(plan: "SimulationPlan", photographs: "Photographs", folder: Path) -> Path:
    """Say beside the log which item shows which photograph; the file's path."""
    from uic.pipelines.simulator.item_images import ITEM_IMAGES_NAME
    from uic.pipelines.simulator.item_images import write_item_images as write
    from uic.pipelines.simulator.world import Catalogue

    path = folder / ITEM_IMAGES_NAME
    write(plan, Catalogue.of(plan), photographs, path)
    return path


def write_calendar(plan: "SimulationPlan", folder: Path) -> Path | None:
    """Write the sale days for `sale.calendar`; the file's path, None without any."""
    if not plan.sale_days:
        return None
    path = folder / SALE_DAYS_NAME
    try:
        path.write_text(plan.sale_calendar.to_yaml(), encoding="utf-8")
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror}); the log itself is complete"
        raise BadInputError(msg) from error
    return path
