"""A small simulated shop with everything in place, for the examples that need one.

    python examples/shop.py var/shop

Takes about a minute the first time; a shop that is there already is only opened.
"""

import sys
from pathlib import Path

import uic


def open_shop(folder: str | Path) -> uic.Workspace:
    """A workspace with a log, a trained ranker, and memories in the embedded Redis."""
    workspace = uic.Workspace(folder)
    if not workspace.bundles():
        workspace.simulate(users=200, items=150, days=62, seed=3)
        workspace.samples("2025-02-27", "2025-03-02", gates=False)
        workspace.train("mimn", epochs=1)
    workspace.store.start()
    if workspace.live_generation() is None:
        workspace.build_memories("mimn/0001", until="2025-03-03")
        loaded = workspace.load()
        workspace.switch(loaded.generation.number)
    return workspace


if __name__ == "__main__":
    shop = open_shop(sys.argv[1] if len(sys.argv) > 1 else "var/shop")
    print(f"{shop.path}: generation {shop.live_generation()} is live")
    print(f"end its Redis with: uic store stop --workspace {shop.path}")
