"""Who may reach what in a deployment: no secret in a file, fenced containers, split networks."""

import re

import yaml

from tests.infra.manifests import INFRA, containers, documents


def test_nothing_of_ours_listens_beyond_loopback_without_a_token():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    assert compose["services"]["serve"]["environment"]["UIC_SERVE__TOKEN"].startswith("${")


def test_no_file_has_a_secret_or_an_empty_one():
    assert not [document for document in documents() if document["kind"] == "Secret"]
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|AUTH", key):
                # Without a value, compose ends with an error.
                assert re.fullmatch(r"\$\{\w+:\?.*\}", value), (name, key)
        assert "PASSWORD" not in str(service.get("command", "")), name


def test_every_container_of_the_manifests_is_fenced():
    """Not root, no writing but to volumes, no capabilities; no token of the cluster's API."""
    for where, container, pod in containers():
        fence = container["securityContext"]
        assert fence["runAsNonRoot"], where
        assert fence["runAsUser"] == 1000, where
        assert fence["readOnlyRootFilesystem"], where
        assert fence["allowPrivilegeEscalation"] is False, where
        assert fence["capabilities"] == {"drop": ["ALL"]}, where
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], where
        if not where.startswith("FlinkDeployment"):
            assert pod["automountServiceAccountToken"] is False, where


def test_every_pod_has_a_network_policy_beside_the_one_that_denies_all():
    policies = [document for document in documents() if document["kind"] == "NetworkPolicy"]
    denied = [policy for policy in policies if not policy["spec"]["podSelector"]]
    assert any(
        set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not {"ingress", "egress"} & set(policy["spec"])
        for policy in denied
    )
    allowed = [p["spec"]["podSelector"].get("matchLabels") for p in policies]
    for document in documents():
        kind, spec = document["kind"], document.get("spec", {})
        if kind == "CronJob":
            labels = spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
        elif kind == "Deployment":
            labels = spec["template"]["metadata"]["labels"]
        elif kind == "FlinkDeployment":
            labels = {"app": document["metadata"]["name"]}
        else:
            continue
        assert labels in allowed, document["metadata"]["name"]


def test_every_service_of_compose_is_fenced_and_in_a_network_of_its_own_kind():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert compose["networks"]["flink"] == {"internal": True}
    for name, service in compose["services"].items():
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if service["image"] != "apache/kafka:3.9.1":  # writes its settings beside its programs
            assert service["read_only"], name
    watch = [n for n, s in compose["services"].items() if "watch" in s["networks"]]
    assert set(watch) == {"stream", "serve", "taskmanager", "prometheus", "grafana"}
