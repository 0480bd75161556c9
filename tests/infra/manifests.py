"""What the manifests of Kubernetes hold."""

from pathlib import Path

import yaml

INFRA = Path(__file__).parents[2] / "infra"
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))


def documents():
    return [
        document
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]


def containers():
    """(where, container) of every pod in the manifests."""
    for document in documents():
        kind, name = document["kind"], document["metadata"]["name"]
        spec = document.get("spec", {})
        if kind == "CronJob":
            pod = spec["jobTemplate"]["spec"]["template"]["spec"]
        elif kind == "Deployment":
            pod = spec["template"]["spec"]
        elif kind == "FlinkDeployment":
            pod = spec["podTemplate"]["spec"]
        else:
            continue
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield f"{kind}/{name}", container, pod
