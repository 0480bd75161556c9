"""One attempt of the stream job: runs a plan until it ends.

`python -m uic.jobs.stream.run.attempt plan.json` runs it in a mini-cluster of this process, which
is what `uic stream run` supervises. `flink run -py jobs/stream/run/attempt.py plan.json` runs the
same job on a cluster whose Python has this package.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import pyflink

from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.loopback import JAVA_OPTION, keep_servers_on_loopback
from uic.jobs.stream.run.metrics_relay import LAG_FILE, relay_metrics

JOB_FILE: Final = "job"
FAILURE_FILE: Final = "failure"
_LOG4J: Final = """rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
appender.file.name = file
appender.file.type = RollingFile
appender.file.fileName = ${sys:log.file}
appender.file.filePattern = ${sys:log.file}.%i
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-60c %x - %m%n
"""


def main(arguments: list[str]) -> int:
    """Run the plan; 0 when the job has ended by itself or was stopped, 1 when it failed."""
    plan = JobPlan.model_validate_json(Path(arguments[0]).read_text(encoding="utf-8"))
    local = "SUBMIT_ARGS" not in os.environ and "PYFLINK_GATEWAY_PORT" not in os.environ
    if local:
        _prepare_process(plan)
    from uic.jobs.stream.run.job import build  # noqa: PLC0415 - reads the environment that was prepared

    if local:
        from pyflink.java_gateway import get_gateway  # noqa: PLC0415 - as above

        keep_servers_on_loopback(get_gateway().jvm)
        if plan.metrics_port:
            _relay_metrics(plan)
    result = build(plan, local=local).execute()
    client = result.get_job_client()
    if not local:
        print(client.get_job_id())  # noqa: T201 - what `flink run` users look for
        return 0
    (plan.run_folder / JOB_FILE).write_text(str(client.get_job_id()), encoding="utf-8")
    try:
        result.wait()
    except Exception as error:
        (plan.run_folder / FAILURE_FILE).write_text(str(error), encoding="utf-8")
        return 1
    return 0


def _prepare_process(plan: JobPlan) -> None:
    """What must be in place before PyFlink starts its Java process."""
    from uic.jobs.stream.topics.java import java_home  # noqa: PLC0415

    plan.run_folder.mkdir(parents=True, exist_ok=True)
    log4j = plan.run_folder / "log4j.properties"
    log4j.write_text(_LOG4J, encoding="utf-8")
    os.environ |= {
        # In a mini-cluster, functions would run as threads of this process.
        "_python_worker_execution_mode": "process",
        # Else all jobs of a machine write one file in site-packages.
        "FLINK_LOG_DIR": str(plan.run_folder.resolve()),
        "LOG4J_PROPERTIES": str(log4j.resolve()),
        "JAVA_HOME": str(java_home()),
        "JVM_ARGS": f"-Xmx{plan.stream.jvm_memory_mib}m {JAVA_OPTION}",
        "OMP_NUM_THREADS": "1",
    }
    if plan.metrics_port:
        # A mini-cluster loads no plugins, where Flink keeps its reporters; PyFlink has no other way
        # to add to Java's class path.
        reporters = (Path(pyflink.__file__).parent / "plugins").glob("metrics-prometheus/*.jar")
        before = filter(None, [os.environ.get("HADOOP_CLASSPATH")])
        os.environ["HADOOP_CLASSPATH"] = os.pathsep.join([*before, *map(str, reporters)])
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _relay_metrics(plan: JobPlan) -> None:
    stream = plan.stream
    try:
        relay_metrics(
            stream.prometheus_host,
            stream.prometheus_port,
            plan.metrics_port,
            plan.run_folder / LAG_FILE,
        )
    except OSError as error:  # the stream of another generation may have it; events come first
        where = f"{stream.prometheus_host}:{stream.prometheus_port}"
        print(f"no metrics at {where}: {error}", file=sys.stderr)  # noqa: T201 - goes to out.log


def _end_with_parent(parent: int) -> None:
    """A job without a supervisor would hang on its first lost task manager: end with it."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
