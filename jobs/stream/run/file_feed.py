"""Hands event files on to a watching job: of each partition one at a time, in order.

Flink reads the files of a folder in any order and several at once, but order holds only within a
file. So the job watches a folder of its own, and a partition's next file is linked into it when
the store's marker says that the one before is folded.
"""

from uic.feature_repo.store.errors import StoreError
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.planner import Planner, staged_path
from uic.jobs.stream.topics.event_files import stage_file
from uic.models.errors import BadInputError


class FileFeed:
    """Feeds one attempt that watches for files.

    Args:
        plan: of the attempt; its first files are staged.
        planner: knows the folder of events, and the store.
    """

    def __init__(self, plan: JobPlan, planner: Planner) -> None:
        self._plan = plan
        self._planner = planner

    def hand_on(self) -> None:
        """Stage what may be read now; nothing for a job that reads until the end."""
        if self._plan.until_end:
            return
        try:
            marks = self._planner.generations.markers(self._plan.generation)
            files = self._planner.files()
        except (StoreError, BadInputError):
            return  # the workers meet the store themselves; a file may be half copied: next time
        folded = marks.get(self._plan.epoch, {})
        for partition, own in files.items():
            done = folded.get(partition, self._plan.starts.get(partition, 0) - 1)
            after = [file for file in own if file.last > done]
            if after and after[0].first <= done + 1:
                target = staged_path(self._plan, after[0])
                if not target.exists():
                    stage_file(target, after[:1])
