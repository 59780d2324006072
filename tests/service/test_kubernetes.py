"""deploy/kubernetes: valid for several versions of Kubernetes, and each container is one role with what is its own.

No cluster runs here: the manifests are read, not applied.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gateway.config.check import check_config
from gateway.config.duties import READS, ROLES, WRITES, secrets_of
from gateway.config.load import parse_config
from tests.support.units import REPOSITORY, STATE

kubernetes_validate = pytest.importorskip("kubernetes_validate")

FOLDER = REPOSITORY / "deploy" / "kubernetes"
MANIFESTS = list(yaml.safe_load_all((FOLDER / "gateway.yaml").read_text("utf-8")))
CONFIG = parse_config((FOLDER / "gateway.toml").read_text("utf-8"), Path("/etc/miad-gateway/gateway.toml"))
PODS = {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in MANIFESTS if "template" in one["spec"]}
CONTAINERS = {
    container["name"]: (pod, container)
    for pod in PODS.values()
    for container in pod["containers"]
    if container["args"][0] == "serve"
}


def kinds(kind: str) -> dict[str, dict]:
    return {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == kind}


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_every_manifest_is_valid(version: str) -> None:
    for manifest in MANIFESTS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_that_is_not_would_be_seen() -> None:
    wrong = {**MANIFESTS[0], "spec": {**MANIFESTS[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@pytest.mark.parametrize("role", ROLES)
def test_a_container_is_one_role_and_holds_no_more(role: str) -> None:
    pod, container = CONTAINERS[role]
    assert container["args"] == ["serve", "--role", role]
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    secrets = {
        volumes[one["name"]]["secret"]["secretName"]
        for one in mounts.values()
        if "secret" in volumes.get(one["name"], {})
    }
    wanted = {str(reference) for _, reference, _ in secrets_of(CONFIG, role)}
    assert all(one.startswith("credential:") for one in wanted)
    assert secrets == ({f"miad-keys-{role}"} if wanted else set())
    folders = {
        path.removeprefix(f"{STATE}/"): one.get("readOnly", False)
        for path, one in mounts.items()
        if path.startswith(STATE)
    }
    assert folders == dict.fromkeys(WRITES[role], False) | dict.fromkeys(READS[role], True)
    (url,) = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "MIAD_DATABASE_URL"]
    assert url == {"name": "miad-database", "key": role}


@pytest.mark.parametrize("name", sorted(PODS))
def test_no_container_has_a_right_that_it_does_not_need(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {
        "type": "RuntimeDefault"
    }
    assert pod["automountServiceAccountToken"] is False and not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_what_was_acknowledged_stays_with_its_pod() -> None:
    """Durability `disk`: spool and derived files lie on the volume that ingress and worker share, in one replica."""
    gateway = kinds("StatefulSet")["miad-gateway"]
    assert gateway["replicas"] == 1 and [one["name"] for one in PODS["miad-gateway"]["containers"]] == [
        "ingress",
        "worker",
    ]
    places = {
        one["mountPath"]: (one["name"], one.get("subPath"))
        for container in PODS["miad-gateway"]["containers"]
        for one in container["volumeMounts"]
    }
    assert places[f"{STATE}/spool"] == ("state", "spool") and places[f"{STATE}/derived"] == ("state", "derived")
    assert gateway["volumeClaimTemplates"][0]["metadata"]["name"] == "state"
    assert CONFIG.store is not None and kinds("StatefulSet")["miad-restore"]["replicas"] == 2  # they read one vault


def test_names_ports_and_selectors_meet() -> None:
    labels = {
        one["spec"]["template"]["metadata"]["labels"]["app"]: one["spec"]["template"]["spec"]
        for one in MANIFESTS
        if "template" in one["spec"]
    }
    ports = {
        app: {port["name"]: port["containerPort"] for one in pod["containers"] for port in one.get("ports", ())}
        for app, pod in labels.items()
    }
    assert ports["miad-gateway"] == {"dicom": CONFIG.ingress.port}
    assert CONFIG.restore is not None and ports["miad-restore"] == {"dicom-tls": CONFIG.restore.tls_port}
    for name, spec in kinds("Service").items():
        assert spec["selector"]["app"] in labels, name
        assert {one["targetPort"] for one in spec.get("ports", ())} <= set(ports[spec["selector"]["app"]])
    for one in kinds("StatefulSet").values():
        assert one["serviceName"] in kinds("Service")
        assert one["selector"]["matchLabels"] == one["template"]["metadata"]["labels"]
    for spec in kinds("NetworkPolicy").values():
        app = spec["podSelector"]["matchLabels"]["app"]
        assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == set(ports[app])


def test_the_configuration_is_one_that_roles_start_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAD_DATABASE_URL", "postgresql+psycopg://miad_ingress@db/miad")
    outside = ("keys", "store", "restore.tls", "site.state")  # what lies in the cluster alone
    found = [one for one in check_config(CONFIG, "all") if one.level == "error" and not one.where.startswith(outside)]
    assert found == []
