"""Whatever is killed, the store ends equal to the batch fold of the same log."""

import pytest

from uic.jobs.drills.crash import DrillOptions, run_drill
from uic.jobs.drills.errors import DrillFailedError

# Java is started again after each kill; on a busy machine that takes a minute.
pytestmark = pytest.mark.timeout(1200)


@pytest.mark.kafka
def test_kafka_worker_and_java_killed_and_redis_restored_and_away(tmp_path):
    options = DrillOptions(events=30_000, users=2000, kills=("worker", "java", "restore", "away"))
    report = run_drill(tmp_path, options, print)
    assert report.users > 1900
    assert report.rejects > 30
    assert sum("killed" in kill or "put Redis" in kill for kill in report.kills) == 4


def test_without_the_position_check_the_drill_fails(tmp_path):
    """The same drill on files; a check that cannot fail would show nothing."""
    options = DrillOptions(
        source="files", events=20_000, users=1000, kills=("java",), position_check=False
    )
    with pytest.raises(DrillFailedError, match="memories and 0 dead letters differ"):
        run_drill(tmp_path, options, print)


def test_files_java_and_redis_killed(tmp_path):
    options = DrillOptions(source="files", events=20_000, users=1000, kills=("java", "redis"))
    report = run_drill(tmp_path, options, print)
    assert report.wrong == 0
    assert len(report.kills) == 2
