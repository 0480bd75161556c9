"""Counters by user and item, and by user and category: the idiomatic keyed PyFlink job.

    python benchmarks/peers/keyed_counters.py EVENTS.jsonl OUT.json

A `KeyedProcessFunction` with a `MapState` of count and last hour, keyed by user, at parallelism 1,
with large bundles. Run by `benchmarks/stream_state.py`, which reads the CPU of the whole process
tree: the file is read by Java, the function runs in a Python worker.
"""

import json
import os
import sys
import time
from pathlib import Path

import psutil
from pyflink.common import Configuration, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.state import MapStateDescriptor


class Count(KeyedProcessFunction):
    """One event into the counters of its user."""

    def open(self, runtime_context: RuntimeContext):
        """Name the state."""
        self.kept = runtime_context.get_map_state(
            MapStateDescriptor("counters", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )

    def process_element(self, value, ctx):
        """Count it, and say what stands there now."""
        event = json.loads(value)
        hour = event["event_time"] // 3_600_000
        for field in ("item_id", "category_id"):
            key = f"{field}:{event[field]}"
            count = (self.kept.get(key) or (0, 0))[0] + 1
            self.kept.put(key, (count, hour))
            yield f"{field}:{ctx.get_current_key()}:{event[field]} {count} {hour}"


def cpu_of_tree(process):
    """Seconds of user and system time of a process and all below it."""
    seconds = 0.0
    for one in [process, *process.children(recursive=True)]:
        times = one.cpu_times()
        seconds += times.user + times.system
    return seconds


def main(source, target):
    """Count, and write what was counted."""
    flink = Configuration()
    settings = {
        "parallelism.default": "1",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.bundle.size": "20000",
        "python.state.cache-size": "100000",
    }
    for key, value in settings.items():
        flink.set_string(key, value)
    env = StreamExecutionEnvironment.get_execution_environment(flink)
    lines = Path(source).read_text().splitlines()
    counted = (
        env.from_collection(lines, Types.STRING())
        .key_by(lambda text: json.loads(text)["user_id"], key_type=Types.LONG())
        .process(Count(), Types.STRING())
    )
    me = psutil.Process()
    found, began, before = {}, None, 0.0
    with counted.execute_and_collect("counters") as results:
        for at, result in enumerate(results):
            if at == len(lines) // 5:  # Java and the worker have started, the JIT has seen some
                began, before = time.monotonic(), cpu_of_tree(me)
            key, count, hour = result.split(" ")
            found[key] = [int(count), int(hour)]
        seconds, wall = cpu_of_tree(me) - before, time.monotonic() - began
    events = len(lines) - len(lines) // 10
    Path(target).write_text(
        json.dumps(
            {"cpu_seconds": seconds, "wall_seconds": wall, "events": events, "counters": found}
        )
    )


if __name__ == "__main__":
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112 - PyFlink's name
    main(*sys.argv[1:])
