"""A ranker of your own, trained, published and loaded like the built-in ones.

    python examples/custom_ranker.py var/ranker

A process that loads the bundle must know the ranker, too. A package tells every process by an
entry point, which `uic train` and `uic serve` look up by the model's name:

    [project.entry-points."uic.rankers"]
    last_click = "my_package.rankers:LAST_CLICK"
"""

import sys
from pathlib import Path

import uic
from uic.models.layers.embedding import BatchRows
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.windows import window_sums
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class LastClick(Ranker):
    """The sum of the newest events, beside what every head has: item, mean and product."""

    def __init__(self, settings: WindowedSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(settings, item_rows, category_rows, own={"newest": width})
        self.limit = settings.history_limit

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """One logit an impression; `finish` ends in the head that all rankers share."""
        newest = window_sums(rows, batch, self.limit)  # (impressions, width)
        return self.finish({"newest": newest}, batch, rows)


LAST_CLICK = uic.ModelKind("Last clicks", WindowedSettings, LastClick)


def main(folder: Path) -> None:
    """Register, train, and measure as `uic evaluate` does."""
    uic.register_ranker("last_click", LAST_CLICK)
    workspace = uic.Workspace(folder)
    workspace.simulate(users=200, items=150, days=20)
    workspace.samples("2025-01-10", "2025-01-20", gates=False)
    bundle = workspace.train("last_click", epochs=1)
    metrics = workspace.evaluate(bundle.label).metrics
    print(f"{bundle.label}: AUC {metrics.auc:.3f}, log loss {metrics.logloss:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/custom-ranker"))
