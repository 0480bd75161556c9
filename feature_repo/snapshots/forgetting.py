"""Takes users out of a published snapshot: their rows go, everything else stays as it was."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.published import file_entry, publish_manifest, sha256_of


def forget_in_snapshot(snapshot: Snapshot, user_ids: NDArray[np.int64]) -> int:
    """Publish a snapshot without some users; how many rows went.

    Its manifest is replaced in one rename, and says how many rows went (`forgotten`).

    Args:
        snapshot: to be published anew.
        user_ids: (users,).
    """
    name = Snapshot.SCHEMA.names[0]
    users = pa.array(user_ids)
    files, gone = [], 0
    for entry in snapshot.manifest["files"]:
        path = snapshot.path / entry["path"]
        table = pq.read_table(path)
        chosen = table.filter(pc.invert(pc.is_in(table[name], value_set=users)))
        if chosen.num_rows == table.num_rows:
            files.append(entry)
            continue
        gone += table.num_rows - chosen.num_rows
        draft = path.with_suffix(".draft")
        pq.write_table(chosen, draft, compression="none", use_dictionary=False)
        target = path.with_name(f"{path.stem.partition('-')[0]}-{sha256_of(draft)[:16]}.parquet")
        draft.rename(target)
        files.append(file_entry(snapshot.path, target, chosen.num_rows))
    if gone:
        manifest = dict(snapshot.manifest)
        manifest |= {
            "files": files,
            "rows": snapshot.rows - gone,
            "forgotten": int(manifest.get("forgotten", 0)) + gone,
        }
        publish_manifest(snapshot.path, manifest)
    return gone
