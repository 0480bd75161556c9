"""What workers tell about themselves, in a real Redis."""

import time

from uic.jobs.stream.fold.status import StatusPublisher, clear_workers, read_status


def test_the_last_counts_of_a_quiet_stream_are_seen(bench):
    client = bench.client()
    clear_workers(client, "quiet", 1, "redis")
    status = StatusPublisher(client, "quiet", 1, "worker")
    for folded in (10, 20, 30):
        status.report({"folded": folded}, {0: folded - 1})
    assert read_status(client, "quiet", 1).totals == {"folded": 10}
    until = time.monotonic() + 20
    while read_status(client, "quiet", 1).totals != {"folded": 30}:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert read_status(client, "quiet", 1).positions == {0: 29}
    status.report({"folded": 31}, {0: 30})
    status.close()
    assert read_status(client, "quiet", 1).totals == {"folded": 31}
