"""The simulated features as a site would have them: two tables and a `features.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from uic.models.features.definition import Feature, Kind, Owner, Scale
from uic.models.features.tables import FEATURES_FILE, name_features, table_path, write_table
from uic.pipelines.simulator.features import SimulatedFeatures
from uic.pipelines.simulator.world import Catalogue, block_count

DEFINITIONS: Final[Mapping[Owner, Mapping[str, Feature]]] = {
    Owner.USER: {
        "age_band": Feature(type=Kind.CATEGORICAL),
        "spending": Feature(type=Kind.NUMBER),
    },
    Owner.ITEM: {
        "segment": Feature(type=Kind.CATEGORICAL),
        "price": Feature(type=Kind.NUMBER, scale=Scale.LOG),
    },
    Owner.CONTEXT: {"position": Feature(type=Kind.CATEGORICAL)},
}


def write_features(features: SimulatedFeatures, catalogue: Catalogue, workspace: Path) -> Path:
    """Write the tables and the file that names them; the file's path.

    Raises:
        BadInputError: the folder cannot be written, or has a `features.yaml` that is none.
    """
    blocks = [features.users(block) for block in range(block_count(features.plan))]
    users = {
        "user_id": np.arange(1, features.plan.users + 1),
        "age_band": np.concatenate([ages for ages, _ in blocks]),
        "spending": np.concatenate([spending for _, spending in blocks]),
    }
    items = {
        "item_id": catalogue.item_ids,
        "segment": features.segments,
        "price": features.prices,
    }
    write_table(table_path(workspace, Owner.USER), pa.table(users))
    write_table(table_path(workspace, Owner.ITEM), pa.table(items))
    file = workspace / FEATURES_FILE
    name_features(file, DEFINITIONS, {Owner.USER: False, Owner.ITEM: False})
    return file
