"""The files of infra: well-formed, and naming only settings, commands and metrics that exist."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from tests.infra.manifests import INFRA, MANIFESTS, containers, documents
from tests.jobs.serving.test_parts import METRICS
from uic.jobs.cli import app
from uic.jobs.config.config import Config
from uic.jobs.stream.fold.counters import COUNTER_NAMES, PARTITION_MOVED
from uic.jobs.stream.run.lag import SourceLag, lag_page
from uic.pipelines.log.events import Reason

DOCS = INFRA.parent / "docs" / "operations.md"
FLINK = "flink_taskmanager_job_task_operator_"


def alerts():
    groups = yaml.safe_load((INFRA / "prometheus" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions():
    dashboard = json.loads((INFRA / "grafana" / "uic.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return shown + [rule["expr"] for rule in alerts()]


@pytest.fixture(scope="module")
def served():
    """Names under which Prometheus sees the service's metrics."""
    found = set()
    # Metrics register themselves, once a process: those of the service's own tests.
    for metric in vars(METRICS).values():
        for family in metric.describe() if hasattr(metric, "describe") else ():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            found |= {family.name + end for end in suffixes.get(family.type, ("",))}
    return found


def test_every_metric_in_dashboard_and_alerts_exists_in_the_code(served):
    flink = {FLINK + name for name in COUNTER_NAMES}
    # The lag of a stream, and Flink's own (tests/integration/stream/test_lag_metric.py sees both).
    flink |= {f"{FLINK}pendingRecords", "uic_stream_lag_events"}
    assert "\nuic_stream_lag_events{" in lag_page(1, SourceLag({}, {}))
    flink |= {f"{FLINK}rejected_{reason}" for reason in (*Reason, PARTITION_MOVED)}
    used = {name for text in expressions() for name in re.findall(r"\b(?:uic|flink)_\w+", text)}
    assert used - served - flink == set()
    assert "uic_serve_seconds_bucket" in used


def test_every_alert_is_explained_in_the_manual():
    text = DOCS.read_text()
    for rule in alerts():
        assert f"**{rule['alert']}**" in text
        assert rule["annotations"]["summary"].endswith(".")


def test_panels_have_units_and_do_not_overlap():
    panels = json.loads((INFRA / "grafana" / "uic.json").read_text())["panels"]
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}) == len(panels)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"prometheus"}


def test_compose_services_wait_for_services_that_exist_and_use_declared_volumes():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        assert "image" in service, name
        waits = service.get("depends_on", {})
        assert set(waits) <= set(services), name
        for other in waits if isinstance(waits, dict) else ():
            if waits[other]["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (INFRA / source).exists(), source
            else:
                assert source in compose["volumes"], source
    # Redis must not evict, and Kafka must stamp: both would lose or reorder memories silently.
    assert "maxmemory-policy noeviction" in services["redis"]["entrypoint"][-1]
    stamps = services["kafka"]["environment"]["KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE"]
    assert stamps == "LogAppendTime"


def environments():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    yield compose["services"]["serve"]["environment"]
    for document in documents():
        if document["kind"] == "ConfigMap":
            yield document["data"]
    for _, container, _ in containers():
        yield {entry["name"]: entry["value"] for entry in container.get("env", ())}


def test_every_setting_in_the_environment_is_one_that_uic_has(monkeypatch):
    for environment in environments():
        for name, value in environment.items():
            if name.startswith("UIC_") and name not in ("UIC_WORKSPACE", "UIC_CONFIG"):
                plain = "" if value.startswith("${") else value
                if plain:
                    monkeypatch.setenv(name, plain)
    config = Config()
    assert config.stream.brokers != Config.model_fields["stream"].default_factory().brokers
    for environment in environments():
        for name in environment:
            section, _, field = name.removeprefix("UIC_").lower().partition("__")
            if name.startswith("UIC_") and field:
                assert field in type(getattr(config, section)).model_fields, name


def test_every_uic_command_in_the_manifests_is_accepted():
    text = "\n".join(
        [
            *(path.read_text() for path in MANIFESTS),
            (INFRA / "compose.yaml").read_text(),
            DOCS.read_text(),
        ]
    )
    used = {
        words
        for words in re.findall(r"\buic ((?:[a-z][a-z-]+ ?){1,2})", text)
        if words.split()[0] in top_level()
    }
    assert len(used) > 10
    for words in used:
        first, *rest = words.split()
        command = [first]
        if first in groups() and rest:
            command.append(rest[0])
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command


def groups():
    return {group.name for group in app.registered_groups}


def top_level():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    return names | groups()


def test_pods_mount_what_they_declare_and_say_what_they_need():
    found = list(containers())
    assert len(found) >= 7
    for where, container, pod in found:
        declared = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= declared, where
        if not where.startswith("FlinkDeployment"):
            assert "requests" in container["resources"], where


def test_objects_refer_to_objects_that_are_there():
    names = {(document["kind"], document["metadata"]["name"]) for document in documents()}
    for where, container, pod in containers():
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in names, where
            # Made by hand, as the head of base.yaml says: a file would have empty values.
            if "secretRef" in source:
                assert source["secretRef"]["name"] == "uic", where
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                continue
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert ("PersistentVolumeClaim", claim) in names, where


def test_the_service_can_lose_a_node_and_be_rolled_without_a_failed_request():
    by_kind = {document["kind"]: document for document in documents()}
    deployment, budget = by_kind["Deployment"]["spec"], by_kind["PodDisruptionBudget"]["spec"]
    assert budget["minAvailable"] < deployment["replicas"]
    assert budget["selector"] == deployment["selector"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    drain = next(e for e in container["env"] if e["name"] == "UIC_SERVE__DRAIN_SECONDS")
    assert float(drain["value"]) < pod["terminationGracePeriodSeconds"]


def test_cron_jobs_never_run_beside_themselves():
    jobs = [document for document in documents() if document["kind"] == "CronJob"]
    assert {job["metadata"]["name"] for job in jobs} == {
        "compact",
        "snapshot",
        "samples",
        "train",
        "audit",
    }
    for job in jobs:
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        assert len(job["spec"]["schedule"].split()) == 5
