"""The idiomatic PyFlink job: keyed state, one torch step an event, memories written through Feast.

    python benchmarks/peers/stream_keyed.py OPTIONS.json

A `KeyedProcessFunction` keeps each user's memory in a `ValueState` and writes with Feast's
`write_to_online_store` (its stock Redis store, the memory as named float lists), per event or per
1,000 events. Run by `benchmarks/stream.py`, which ends it when it has seen enough: the function
appends `seconds events` to a progress file.
"""

import builtins
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.common.serialization import SimpleStringSchema
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.kafka import KafkaOffsetsInitializer, KafkaSource
from pyflink.datastream.state import ValueStateDescriptor


class FoldOne(KeyedProcessFunction):
    """One event into one memory."""

    def __init__(self, options):
        self.options = options

    def open(self, runtime_context: RuntimeContext):
        """Load the bundle, connect to Feast."""
        replaced = builtins.print  # Numba does not find PyFlink's own `print`
        builtins.print = getattr(getattr(replaced, "__self__", None), "_print", replaced)
        from store import STATE, stock_store  # noqa: PLC0415 - after `print` is back

        from uic.models.bundles.bundle import load_bundle  # noqa: PLC0415
        from uic.models.memory.fold import MemoryFolder  # noqa: PLC0415
        from uic.models.memory.state import MemoryState  # noqa: PLC0415

        builtins.print = replaced
        torch.set_num_threads(1)
        self.unpack, self.names = MemoryState.unpack, STATE
        bundle = load_bundle(Path(self.options["bundle"]))
        self.bundle, self.network = bundle, bundle.memory
        self.folder = MemoryFolder(bundle, 1)
        folder = Path(self.options["feast"]) / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        self.store = stock_store(folder, self.options["redis_port"])
        self.memory = runtime_context.get_state(
            ValueStateDescriptor("memory", Types.PICKLED_BYTE_ARRAY())
        )
        self.rows, self.count = [], 0
        self.progress = Path(self.options["progress"]).open("a")  # noqa: SIM115 - until the job ends

    def process_element(self, value, ctx):  # noqa: ARG002 - Flink's signature
        """One step of the network on the user's state."""
        event = json.loads(value)
        stored = self.memory.value()
        record = (
            self.folder.initial_records(1)
            if stored is None
            else np.frombuffer(stored, np.uint8).reshape(1, -1).copy()
        )
        with torch.no_grad():
            state = self.unpack(record, self.network.layout)
            x = self.bundle.embed(np.array([event["item_id"]]), np.array([event["category_id"]]))
            self.network.step(state, x).pack(record)
        self.memory.update(record.tobytes())
        self.rows.append((event["user_id"], record[0, 44:].view(np.float16).astype(np.float32)))
        self.count += 1
        if len(self.rows) >= self.options["rows_per_write"]:
            self.write()
        if self.count % 50 == 0:
            self.progress.write(f"{time.time()} {self.count}\n")
            self.progress.flush()
        return []

    def write(self):
        """The newest memory of each user, through Feast."""
        newest = dict(self.rows)  # the last memory of each user
        states = np.array(list(newest.values()))
        columns = {"user_id": list(newest), "event_timestamp": datetime.now(UTC)}
        first = 0
        for name, width in self.names.items():
            columns[name] = list(states[:, first : first + width])
            first += width
        columns |= {"epoch": 1, "partition": 0, "position": self.count}
        self.store.write_to_online_store("lists", pd.DataFrame(columns))
        self.rows.clear()


def main(options):
    flink = Configuration()
    settings = {
        "parallelism.default": "1",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.execution-mode": options["mode"],
        "python.fn-execution.bundle.size": str(options["bundle_size"]),
        "python.state.cache-size": "100000",
        "execution.checkpointing.interval": "10 s",
        "execution.checkpointing.dir": f"file://{options['checkpoints']}",
        "pipeline.jars": f"file://{options['jar']}",
    }
    for key, value in settings.items():
        flink.set_string(key, value)
    env = StreamExecutionEnvironment.get_execution_environment(flink)
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(options["brokers"])
        .set_topics(options["topic"])
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )
    (
        env.from_source(source, WatermarkStrategy.no_watermarks(), "log")
        .key_by(lambda text: json.loads(text)["user_id"], key_type=Types.LONG())
        .process(FoldOne(options), Types.INT())
        .print()
    )
    env.execute("idiomatic")


if __name__ == "__main__":
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112 - PyFlink's name
    main(json.loads(Path(sys.argv[1]).read_text()))
