"""The manifest of a simulation with photographs: which item shows which file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv

from uic.pipelines.simulator.plan import SimulationPlan, SimulationPlanError
from uic.pipelines.simulator.world import Catalogue

ITEM_IMAGES_NAME: Final = "simulated_images.csv"


@dataclass(frozen=True)
class Photographs:
    """Photographs by class, in order of their names.

    Args:
        classes: names of the classes.
        counts: photographs of each class.
        paths: of all photographs, class after class.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    paths: tuple[str, ...]

    @classmethod
    def of(cls, labelled: Iterable[tuple[str, str | None]], where: Path) -> "Photographs":
        """From (path, class) pairs; those without a class are left out.

        Raises:
            SimulationPlanError: fewer than two classes; names `where`.
        """
        by_class: dict[str, list[str]] = {}
        for path, label in labelled:
            if label is not None:
                by_class.setdefault(label, []).append(path)
        if len(by_class) < 2:
            msg = f"--images {where}: found {len(by_class)} classes; expected folders, one a class"
            raise SimulationPlanError(msg)
        classes = tuple(sorted(by_class))
        return cls(
            classes,
            tuple(len(by_class[name]) for name in classes),
            tuple(path for name in classes for path in sorted(by_class[name])),
        )


def write_item_images(
    plan: SimulationPlan, catalogue: Catalogue, photographs: Photographs, path: Path
) -> None:
    """Write `item_id, path, class, first_day`, a line an item, by id.

    Raises:
        SimulationPlanError: the catalogue has no photographs, or the file cannot be written.
    """
    gallery = catalogue.gallery
    if gallery is None:
        msg = f"{path}: the simulation has no photographs; give --images"
        raise SimulationPlanError(msg)
    names = pa.array(photographs.classes)
    table = pa.table(
        {
            "item_id": catalogue.item_ids,
            "path": pa.array(photographs.paths).take(pa.array(gallery.photograph_of_row)),
            "class": names.take(pa.array(gallery.class_of_row)),
            "first_day": [str(plan.day(day)) for day in gallery.launch_day_of_row.tolist()],
        }
    )
    try:
        pacsv.write_csv(table.sort_by("item_id"), path)
    except OSError as error:
        msg = f"{path}: cannot be written ({error}); the log itself is complete"
        raise SimulationPlanError(msg) from error
