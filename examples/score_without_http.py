"""Scores without HTTP: the service's own parts in this process, for batch jobs and notebooks.

    python examples/score_without_http.py var/shop

The answer is the one that `uic serve` gives for the same request.
"""

import sys
from pathlib import Path

from shop import open_shop


def main(folder: Path) -> None:
    """Rank twenty items for two users."""
    workspace = open_shop(folder)
    try:
        for user in (17, 10**9):
            answer = workspace.rank(user, list(range(1, 21)), k=3)
            best = ", ".join(f"{item.item_id} ({item.probability:.3f})" for item in answer.items)
            print(f"user {user}: {best}; {', '.join(answer.reasons) or 'with memory'}")
    finally:
        workspace.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/score-without-http"))
