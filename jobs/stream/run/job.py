"""The Flink job: one scan, one call of the fold, dead letters and archive.

No `keyBy` and no window: the log is keyed by user, one subtask reads a partition, and an Arrow
batch is the micro-batch. Everything else that a stream job usually has is in the fold function.
"""

import sys
from pathlib import Path
from typing import Final

import pyflink
from pyflink.common import Configuration
from pyflink.table import DataTypes, EnvironmentSettings, StatementSet, TableEnvironment
from pyflink.table.udf import udf

from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.udf import FoldEvents
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.java import jars

_FILE_COLUMNS: Final = (
    "payload BYTES, log_partition INT, log_offset BIGINT, log_time TIMESTAMP_LTZ(3)"
)
_JSON: Final = "'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601'"
_PYTHON_JAR: Final = "flink-python-*.jar"
_WATCH_INTERVAL: Final = "500 ms"
# Flink cuts texts, not bytes; in Latin-1 each byte is a character.
_LATIN_1: Final = "DECODE(payload, 'ISO-8859-1')"
_CHARACTERS: Final = f"CHAR_LENGTH({_LATIN_1})"


def configuration(plan: JobPlan, *, local: bool) -> dict[str, str]:
    """Flink's settings.

    Args:
        plan: of the attempt.
        local: a mini-cluster in this process; a cluster has its own ports, folders and Python.
    """
    stream = plan.stream
    settings = {
        "parallelism.default": str(stream.parallelism),
        "pipeline.name": f"uic stream, generation {plan.generation}",
        "table.local-time-zone": "UTC",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.arrow.batch.size": str(stream.batch_rows),
        "python.fn-execution.bundle.size": str(stream.batch_rows),
        "python.fn-execution.bundle.time": str(stream.batch_milliseconds),
        "execution.checkpointing.interval": f"{stream.checkpoint_seconds * 1000:.0f} ms",
        "execution.checkpointing.dir": _uri(plan.checkpoint_folder),
        "execution.checkpointing.savepoint-dir": (
            _uri(plan.checkpoint_folder.with_name("savepoints"))
        ),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
        "restart-strategy.type": "fixed-delay" if stream.task_restarts else "none",
        "restart-strategy.fixed-delay.attempts": str(stream.task_restarts),
        "restart-strategy.fixed-delay.delay": "1 s",
    }
    if plan.uses_kafka:
        connector = jars("flink", stream.jars_folder)
        # The setting takes the place of the jar that `flink run -py` ships, so a cluster gets that
        # one, too. The mini-cluster has it on its class path.
        python = [] if local else sorted((Path(pyflink.__file__).parent / "opt").glob(_PYTHON_JAR))
        settings["pipeline.jars"] = ";".join(_uri(jar) for jar in (*connector, *python))
    if plan.restore_from is not None:
        settings["execution.state-recovery.path"] = _uri(plan.restore_from)
    if local:
        settings["rest.port"] = str(plan.rest_port)
        for server in ("rest.bind-address", "jobmanager.bind-host", "taskmanager.bind-host"):
            settings[server] = "127.0.0.1"
        # A jar that is sent to it would run as us: who reaches the port may look, not submit.
        settings["web.submit.enable"] = "false"
    if local and plan.metrics_port:
        settings |= {
            "metrics.reporter.prom.factory.class": (
                "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
            ),
            "metrics.reporter.prom.port": str(plan.metrics_port),
        }
    return settings


def build(plan: JobPlan, *, local: bool = True) -> StatementSet:
    """The job, ready to `explain()` or `execute()`."""
    if plan.uses_kafka and not local:
        brokers_of(plan.stream).check_environment()
    flink = Configuration()
    for key, value in configuration(plan, local=local).items():
        flink.set_string(key, value)
    environment = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(flink).build()
    )
    environment.create_temporary_function(
        "fold_events",
        udf(
            FoldEvents(plan.model_dump_json()),
            result_type=DataTypes.STRING(),
            func_type="pandas",
        ),
    )
    environment.execute_sql(_source(plan))
    environment.execute_sql(_dead_letters(plan))
    environment.execute_sql(
        # An int of ours, which no one else writes into the statement.
        f"CREATE TEMPORARY VIEW log_of_epoch AS SELECT *, {plan.epoch:d} AS log_epoch FROM log"  # noqa: S608
    )
    statements = environment.create_statement_set()
    statements.add_insert_sql(
        # Of our own words and ints alone.
        f"INSERT INTO dead_letters SELECT {_letter(plan)}, log_partition, log_offset, log_time, "  # noqa: S608
        f"reason, log_epoch, {_CHARACTERS} FROM (SELECT payload, log_partition, log_offset, "
        "log_time, fold_events(payload, log_partition, log_offset, log_time) AS reason, "
        "log_epoch FROM log_of_epoch) WHERE reason IS NOT NULL"
    )
    if plan.stream.archive:
        environment.execute_sql(_archive(plan))
        statements.add_insert_sql(
            "INSERT INTO archive SELECT payload, log_partition, log_offset, log_time, "
            "DATE_FORMAT(log_time, 'yyyy-MM-dd'), log_partition FROM log_of_epoch"
        )
    return statements


def _source(plan: JobPlan) -> str:
    if plan.source == "files":
        watch = "" if plan.until_end else f", 'source.monitor-interval' = '{_WATCH_INTERVAL}'"
        return (
            f"CREATE TEMPORARY TABLE log ({_FILE_COLUMNS}) WITH ('connector' = 'filesystem', "
            f"'path' = '{_uri(plan.staged_files)}', {_JSON}{watch})"
        )
    offsets = ";".join(
        f"partition:{partition},offset:{offset}" for partition, offset in plan.starts.items()
    )
    # To the end that was planned, not to the latest offset: a restarted attempt ends there too.
    ends = ";".join(
        f"partition:{partition},offset:{offset}" for partition, offset in plan.ends.items()
    )
    bounded = (
        f"'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = '{ends}', "
        if plan.until_end
        else ""
    )
    return (
        "CREATE TEMPORARY TABLE log (payload BYTES, "
        "log_partition INT NOT NULL METADATA FROM 'partition' VIRTUAL, "
        "log_offset BIGINT NOT NULL METADATA FROM 'offset' VIRTUAL, "
        "log_time TIMESTAMP_LTZ(3) NOT NULL METADATA FROM 'timestamp' VIRTUAL) WITH ("
        f"'connector' = 'kafka', 'topic' = '{plan.stream.topic}', 'format' = 'raw', "
        f"{brokers_of(plan.stream).flink_options()}, "
        f"'properties.group.id' = 'uic-{plan.project}-{plan.generation}', "
        # A partition that appears later re-maps users: a new epoch, not more of this one.
        "'scan.topic-partition-discovery.interval' = '0 ms', "
        "'properties.isolation.level' = 'read_committed', "
        # An offset that retention has eaten is an error, never a silent jump.
        "'properties.auto.offset.reset' = 'none', "
        f"{bounded}"
        "'scan.startup.mode' = 'specific-offsets', "
        f"'scan.startup.specific-offsets' = '{offsets}')"
    )


def _letter(plan: JobPlan) -> str:
    """The payload as the way out takes it: a topic's is narrower than the way in (base64, JSON)."""
    if plan.letter_bytes is None:
        return "payload"
    return (
        f"CASE WHEN {_CHARACTERS} > {plan.letter_bytes:d} THEN ENCODE(SUBSTRING("
        f"{_LATIN_1} FROM 1 FOR {plan.letter_bytes:d}), 'ISO-8859-1') ELSE payload END"
    )


def _dead_letters(plan: JobPlan) -> str:
    columns = f"{_FILE_COLUMNS}, reason STRING, log_epoch INT, payload_bytes INT"
    if plan.stream.dead_letter_topic:
        return (
            f"CREATE TEMPORARY TABLE dead_letters ({columns}) WITH ('connector' = 'kafka', "
            f"'topic' = '{plan.stream.dead_letter_topic}', {_JSON}, "
            f"{brokers_of(plan.stream).flink_options()}, "
            "'sink.delivery-guarantee' = 'at-least-once')"
        )
    return (
        f"CREATE TEMPORARY TABLE dead_letters ({columns}) WITH ('connector' = 'filesystem', "
        f"'path' = '{_epoch_folder(plan.dead_letter_folder, plan.epoch)}', {_JSON}, "
        f"{_rolling(plan)})"
    )


def _archive(plan: JobPlan) -> str:
    return (
        f"CREATE TEMPORARY TABLE archive ({_FILE_COLUMNS}, dt STRING, part INT) "
        "PARTITIONED BY (dt, part) WITH ('connector' = 'filesystem', "
        f"'path' = '{_epoch_folder(plan.archive_folder, plan.epoch)}', {_JSON}, {_rolling(plan)})"
    )


def _uri(path: Path) -> str:
    """As Flink wants it: `Path.as_uri` would write `=` as `%3D`, and Flink takes that as a name."""
    return f"file://{path.resolve()}"


def _epoch_folder(folder: Path, epoch: int) -> str:
    return _uri(folder / f"epoch={epoch:05d}")


def _rolling(plan: JobPlan) -> str:
    seconds = plan.stream.archive_roll_seconds
    return (
        f"'sink.rolling-policy.rollover-interval' = '{seconds * 1000:.0f} ms', "
        f"'sink.rolling-policy.check-interval' = '{min(seconds, 1.0) * 1000:.0f} ms'"
    )
