"""deploy/kubernetes: valid for several versions of Kubernetes, and each container is one role with what is its own.

No cluster runs here: the manifests are read, not applied.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from sqlalchemy import text, update

from gateway.config.check import check_config
from gateway.config.duties import READS, ROLES, WRITES, secrets_of
from gateway.config.load import parse_config
from gateway.database import InstanceRow, open_database, reading, sqlite_url, transaction
from gateway.flow.store import HELD, MARKED, SEALED, FlowStore, lease_owner
from tests.conftest import needed
from tests.support.flow import add_row
from tests.support.units import REPOSITORY, STATE

kubernetes_validate = needed("kubernetes_validate")

FOLDER = REPOSITORY / "deploy" / "kubernetes"
TOML, FILE = (FOLDER / "gateway.toml").read_text("utf-8"), Path("/etc/miad-gateway/gateway.toml")
DURABILITIES = ("disk", "cluster")


class Site:
    """What is applied for one durability, and the configuration that it runs on."""

    def __init__(self, durability: str) -> None:
        files = [FOLDER / "common.yaml", FOLDER / f"{durability}.yaml"]
        self.manifests = [one for file in files for one in yaml.safe_load_all(file.read_text("utf-8"))]
        self.config = parse_config(TOML.replace('durability = "disk"', f'durability = "{durability}"'), FILE)
        templates = [one for one in self.manifests if "template" in one["spec"]]
        self.pods = {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in templates}
        self.containers = {
            container["name"]: (pod, container)
            for pod in self.pods.values()
            for container in pod["containers"]
            if container["args"][0] == "serve"
        }

    def kinds(self, kind: str) -> dict[str, dict]:
        return {one["metadata"]["name"]: one["spec"] for one in self.manifests if one["kind"] == kind}

    def keda(self) -> list[dict]:
        return [one for one in self.manifests if one["apiVersion"] == KEDA]


KEDA = "keda.sh/v1alpha1"
SITES = {durability: Site(durability) for durability in DURABILITIES}


@pytest.fixture(params=DURABILITIES)
def site(request: pytest.FixtureRequest) -> Site:
    return SITES[request.param]


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_every_manifest_is_valid(site: Site, version: str) -> None:
    for manifest in site.manifests:
        if manifest not in site.keda():
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_that_is_not_would_be_seen(site: Site) -> None:
    wrong = {**site.manifests[0], "spec": {**site.manifests[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@pytest.mark.parametrize("role", ROLES)
def test_a_container_is_one_role_and_holds_no_more(site: Site, role: str) -> None:
    pod, container = site.containers[role]
    assert container["args"] == ["serve", "--role", role]
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    secrets = {
        volumes[one["name"]]["secret"]["secretName"]
        for one in mounts.values()
        if "secret" in volumes.get(one["name"], {})
    }
    wanted = {str(reference) for _, reference, _ in secrets_of(site.config, role)}
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


@pytest.mark.parametrize(("durability", "name"), [(one, name) for one in DURABILITIES for name in SITES[one].pods])
def test_no_container_has_a_right_that_it_does_not_need(durability: str, name: str) -> None:
    pod = SITES[durability].pods[name]
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
    disk = SITES["disk"]
    gateway = disk.kinds("StatefulSet")["miad-gateway"]
    assert gateway["replicas"] == 1 and [one["name"] for one in disk.pods["miad-gateway"]["containers"]] == [
        "ingress",
        "worker",
    ]
    places = {
        one["mountPath"]: (one["name"], one.get("subPath"))
        for container in disk.pods["miad-gateway"]["containers"]
        for one in container["volumeMounts"]
    }
    assert places[f"{STATE}/spool"] == ("state", "spool") and places[f"{STATE}/derived"] == ("state", "derived")
    assert gateway["volumeClaimTemplates"][0]["metadata"]["name"] == "state"
    assert (
        disk.config.store is not None and disk.kinds("StatefulSet")["miad-restore"]["replicas"] == 2
    )  # they read one vault


def test_what_was_acknowledged_lies_with_no_pod() -> None:
    """Durability `cluster`: ingress and workers are replicas, and keep nothing that outlives them."""
    cluster = SITES["cluster"]
    deployments = cluster.kinds("Deployment")
    assert deployments["miad-ingress"]["replicas"] == 2 and "replicas" not in deployments["miad-worker"]  # KEDA's
    for name in ("miad-ingress", "miad-worker"):
        claims = [one for one in cluster.pods[name]["volumes"] if "persistentVolumeClaim" in one or "ephemeral" in one]
        assert (
            len(cluster.pods[name]["containers"]) == 1
            and not claims
            and "volumeClaimTemplates" not in deployments[name]
        )
    gpu = {name: "nvidia.com/gpu" in str(pod["containers"]) for name, pod in cluster.pods.items()}
    assert gpu == {name: name == "miad-worker" for name in cluster.pods}
    assert cluster.kinds("Service")["miad-gateway"]["selector"] == {"app": "miad-ingress"}


# KEDA's own schemas are no part of Kubernetes': of keda.sh/v1alpha1 (2.x), what is used here and no more
SCALED_OBJECT = {
    "scaleTargetRef": {"name": str},
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "pollingInterval": int,
    "cooldownPeriod": int,
    "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": int}}}},
    "triggers": [
        {
            "type": str,
            "metadata": {"query": str, "targetQueryValue": str},  # values of metadata are texts
            "authenticationRef": {"name": str},
        }
    ],
}
AUTHENTICATION = {"secretTargetRef": [{"parameter": str, "name": str, "key": str}]}


def fits(value: object, schema: object) -> bool:
    if isinstance(schema, dict):
        return (
            isinstance(value, dict) and value.keys() == schema.keys() and all(fits(value[k], schema[k]) for k in schema)
        )
    if isinstance(schema, list):
        return isinstance(value, list) and bool(value) and all(fits(one, schema[0]) for one in value)
    return type(value) is schema


def test_workers_follow_the_queue() -> None:
    cluster = SITES["cluster"]
    (scaled,), (login,) = cluster.kinds("ScaledObject").values(), cluster.kinds("TriggerAuthentication").values()
    assert fits(scaled, SCALED_OBJECT) and fits(login, AUTHENTICATION)
    assert not fits({**scaled, "minReplicas": 1}, SCALED_OBJECT)
    number = {**scaled["triggers"][0], "metadata": {"query": "", "targetQueryValue": 5}}
    assert not fits({**scaled, "triggers": [number]}, SCALED_OBJECT)
    assert scaled["scaleTargetRef"]["name"] in cluster.kinds("Deployment")
    assert 1 <= scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "postgresql" and login["secretTargetRef"][0]["parameter"] == "connection"
    assert trigger["authenticationRef"]["name"] in cluster.kinds("TriggerAuthentication")


def test_the_scaler_s_query_counts_what_waits_for_its_mark(tmp_path: Path) -> None:
    (scaled,) = SITES["cluster"].kinds("ScaledObject").values()
    engine = open_database(sqlite_url(tmp_path / "rows.sqlite"))
    store = FlowStore(engine, lease_owner())
    ids = [add_row(store, number) for number in range(4)]
    with transaction(engine) as session:
        for instance, state in zip(ids, (SEALED, MARKED, HELD), strict=False):
            session.execute(update(InstanceRow).where(InstanceRow.id == instance).values(state=state))
    with reading(engine) as session:
        assert session.scalar(text(scaled["triggers"][0]["metadata"]["query"])) == 2  # received, sealed


def test_names_ports_and_selectors_meet(site: Site) -> None:
    labels = {
        one["spec"]["template"]["metadata"]["labels"]["app"]: one["spec"]["template"]["spec"]
        for one in site.manifests
        if "template" in one["spec"]
    }
    ports = {
        app: {port["name"]: port["containerPort"] for one in pod["containers"] for port in one.get("ports", ())}
        for app, pod in labels.items()
    }
    (own,) = [name for name, pod in site.pods.items() if any(one["name"] == "ingress" for one in pod["containers"])]
    assert ports[own] == {"dicom": site.config.ingress.port}
    assert site.config.restore is not None and ports["miad-restore"] == {"dicom-tls": site.config.restore.tls_port}
    for name, spec in site.kinds("Service").items():
        assert spec["selector"]["app"] in labels, name
        assert {one["targetPort"] for one in spec.get("ports", ())} <= set(ports[spec["selector"]["app"]])
    for one in site.kinds("StatefulSet").values():
        assert one["serviceName"] in site.kinds("Service")
        assert one["selector"]["matchLabels"] == one["template"]["metadata"]["labels"]
    for spec in site.kinds("NetworkPolicy").values():
        app = spec["podSelector"]["matchLabels"]["app"]
        assert {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]} == set(ports[app])


def test_the_configuration_is_one_that_roles_start_with(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAD_DATABASE_URL", "postgresql+psycopg://miad_ingress@db/miad")
    outside = ("keys", "store", "restore.tls", "site.state")  # what lies in the cluster alone
    found = [
        one for one in check_config(site.config, "all") if one.level == "error" and not one.where.startswith(outside)
    ]
    assert found == []
