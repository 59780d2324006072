"""deploy/install.sh and upgrade.sh on a machine of the test's own, with systemd: what they set up works and goes back.

The units run under all that they say of system calls, name spaces, capabilities, files and /proc. Not in force in name
spaces alone: devices (DeviceAllow=, PrivateDevices= beyond /dev), MemoryMax= and TasksMax=.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLSLossless
from pynetdicom import AE, evt, sop_class

from tests.service.test_separate_users import EXPLICIT_LITTLE, retrieve
from tests.support.booted import PYTHON, SOURCE, Machine, can_boot, packages
from tests.support.dicom.compressed import lossless_frame, wrapped
from tests.support.dicom.samples import encode
from tests.support.flow import ct
from tests.support.ports import free_port

pytestmark = [pytest.mark.full, pytest.mark.timeout(1500)]
if not can_boot():
    pytestmark.append(pytest.mark.skip(reason="boots a systemd of its own: wants root, systemd and name spaces"))

ETC, OPT = "/etc/miad-gateway", "/opt/miad-gateway"
NEWER = '''"""A table more."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9990", "{head}", None, None


def upgrade() -> None:
    op.create_table("of_a_newer_release", sa.Column("id", sa.Integer, primary_key=True))


def downgrade() -> None:
    op.drop_table("of_a_newer_release")
'''
MAKE_VENV = """set -e
{python}/bin/python3 -m venv --without-pip {venv}
site=$(echo {venv}/lib/python3*/site-packages)
printf '%s\\n' {paths} > $site/packages.pth
printf '#!{venv}/bin/python3\\nfrom gateway.cli import main\\nmain()\\n' > {venv}/bin/miad-gateway
chmod 755 {venv}/bin/miad-gateway
"""


@dataclass
class Installed:
    """The machine, what the outside has got, and whom to talk to."""

    machine: Machine
    ports: list[int]
    received: list[tuple[str, bytes]] = field(default_factory=list)

    def script(self, name: str, *words: str, check: bool = True) -> str:
        done = self.machine.run("env", "READY_S=600", f"{SOURCE}/deploy/{name}", *words, check=check)
        assert check or done.returncode != 0, done.stderr
        return done.stderr

    def gateway(self, *words: str, check: bool = True, bin_: str = f"{OPT}/.venv/bin"):
        keys = f"CREDENTIALS_DIRECTORY={ETC}/keys"
        return self.machine.run(
            "env", keys, f"{bin_}/miad-gateway", *words, "--config", f"{ETC}/gateway.toml", check=check
        )

    def wait(self, so: Callable[[], object], what: str, seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not so():
            if time.monotonic() > deadline:
                raise AssertionError(what + "".join(self.journal(role)[-2000:] for role in ROLES))
            time.sleep(0.2)

    def journal(self, role: str) -> str:
        return self.machine.journal(f"miad-gateway-{role}.service")

    def wait_ready(self) -> None:
        """All roles that this start of them brought up say so."""
        for role in ROLES:
            self.wait(
                lambda role=role: self.starts(role) <= self.journal(role).count('"event": "ready"'), f"{role} ready"
            )

    def starts(self, role: str) -> int:
        return len(re.findall("Started .*role", self.journal(role)))

    def send(self, ds: Dataset, data: bytes, syntax: str = EXPLICIT_LITTLE) -> None:
        archive = AE("ARCHIVE")
        archive.add_requested_context(sop_class.CTImageStorage, syntax)
        association = archive.associate("127.0.0.1", self.ports[0], ae_title="MIAD_GATEWAY")
        assert association.is_established
        sent = dcmread(io.BytesIO(data), force=True)
        sent.file_meta.TransferSyntaxUID = syntax
        sent.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        sent.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        assert association.send_c_store(sent).Status == 0x0000
        association.release()

    def carries(self, number: int) -> None:
        """One image all the way: marked outside, and the original back at the workstation."""
        ds = ct(number)
        had = len(self.received)
        self.send(ds, encode(ds))
        self.wait(lambda: len(self.received) > had, "nothing arrived")
        derived, copy = self.received[-1]
        assert derived != ds.SOPInstanceUID and copy != encode(ds)
        assert retrieve(self, ds) == [encode(ds)]

    def version(self) -> str:
        return self.machine.run("readlink", f"{OPT}/current").stdout.strip().removeprefix("releases/")


ROLES = ("ingress", "worker", "restore", "page")


def make_venv(machine: Machine, venv: str, *first: str) -> None:
    paths = [*first, *(machine.binds[path] for path in packages())]
    machine.run("sh", "-c", MAKE_VENV.format(python=PYTHON, venv=venv, paths=" ".join(paths)))


@pytest.fixture(scope="module")
def site() -> Iterator[Installed]:
    ports = [free_port() for _ in range(4)]
    sink = AE("SINK")
    sink.add_supported_context(sop_class.CTImageStorage, [EXPLICIT_LITTLE, JPEGLSLossless])
    with Machine() as machine:
        found = Installed(machine, ports)

        def keep(event: evt.Event) -> int:
            found.received.append((event.request.AffectedSOPInstanceUID, event.encoded_dataset(include_meta=False)))
            return 0x0000

        server = sink.start_server(("127.0.0.1", ports[1]), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
        try:
            make_venv(machine, "/opt/this", SOURCE)
            yield found
        finally:
            server.shutdown()


def test_it_installs_and_carries_an_image(site: Installed) -> None:
    """Then: run again it changes nothing, each file has its owner, and the units are hardened in earnest."""
    one, two, three, four = map(str, site.ports)
    init = ["--yes", "--archive", "ARCHIVE@127.0.0.1", "--destination", f"SINK@127.0.0.1:{two}", "--tls", "no"]
    init += ["--workstation", "READER@127.0.0.1", "--port", one, "--restore-port", three, "--page-port", four]
    site.script("install.sh", "--venv", "/opt/this", "--no-start", "--", *init)
    run = site.machine.run
    run(
        "sed",
        "-i",
        "s/^# mark = .*/mark = { steps = 0 }/; s/^port = " + one + "$/&\\nmin_free_mib = 1/",
        f"{ETC}/gateway.toml",
    )
    told = site.script("install.sh", "--venv", "/opt/this")
    assert "is there" in told and "first configuration" not in told
    listed = run("stat", "-c", "%U:%G %a %n", ETC, f"{ETC}/gateway.toml", f"{ETC}/keys", f"{ETC}/keys/spool.key").stdout
    assert listed.splitlines() == [
        f"root:miad-gateway 750 {ETC}", f"root:miad-gateway 640 {ETC}/gateway.toml", f"root:root 700 {ETC}/keys",
        f"root:root 600 {ETC}/keys/spool.key",
    ]  # fmt: skip
    site.wait_ready()
    site.carries(1)


def test_codec_children_are_confined_inside_the_units(site: Installed) -> None:
    """A compressed image is decoded and encoded there, and the worker has nothing to say about what cannot be kept."""
    ds = ct(2)
    pixels = np.frombuffer(ds.PixelData, np.int16).reshape(ds.Rows, ds.Columns)
    signed = {"PixelRepresentation": 1}
    data = wrapped(ds, lossless_frame(pixels, JPEGLSLossless, **signed))
    had = len(site.received)
    site.send(ds, data, JPEGLSLossless)
    site.wait(lambda: len(site.received) > had, "nothing arrived")
    confined = site.machine.run(
        "env",
        f"PYTHONPATH={SOURCE}",
        "/opt/this/bin/python3",
        "-c",
        "from gateway.dicom.pixels.children.launch import unprotected; print(len(unprotected()))",
    ).stdout
    assert site.journal("worker").count("compressed frames are decoded in a process of its own, but") == int(confined)


def test_no_role_complains(site: Installed) -> None:
    for role in ROLES:
        text = site.journal(role)
        assert '"level": "error"' not in text and "Traceback" not in text, text[-3000:]
        status = site.machine.run(
            "sh", "-c", f"cat /proc/$(systemctl show -P MainPID miad-gateway-{role})/status"
        ).stdout
        assert re.search(r"^Seccomp:\s*2", status, re.MULTILINE) and re.search(
            r"^NoNewPrivs:\s*1", status, re.MULTILINE
        )
        capabilities = int(re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE)[1], 16)
        assert capabilities == (1 << 10 if role in ("ingress", "restore") else 0)  # CAP_NET_BIND_SERVICE


def newer(site: Installed) -> None:
    """A release after this one, as far as an upgrade can see: another version, and a table more."""
    head = json.loads(site.gateway("database", "show", "--json").stdout)["revision"]
    site.machine.run("sh", "-c", f"""set -e
        [ -e /opt/newer ] && exit 0
        mkdir -p /opt/newer && cp -a {SOURCE}/gateway {SOURCE}/plugins /opt/newer  # what is compiled stays valid
        sed -i 's/^__version__.*/__version__ = "9.9.0"/' /opt/newer/gateway/__init__.py""")  # fmt: skip
    file = "/opt/newer/gateway/database/migrations/versions/9990_newer.py"
    site.machine.run("tee", file, text=NEWER.format(head=head))
    make_venv(site.machine, "/opt/next", "/opt/newer")


def test_an_upgrade_migrates_and_goes_back_as_if_it_had_not_been(site: Installed) -> None:
    newer(site)
    before = json.loads(site.gateway("database", "show", "--json").stdout)
    here = site.version()
    told = site.script("upgrade.sh", "--venv", "/opt/next")
    assert f"from {here} to 9.9.0" in told and site.version() == "9.9.0"
    old = site.gateway("database", "show", check=False, bin_="/opt/this/bin")
    assert old.returncode == 2
    refused = site.gateway("queue", "ls", check=False, bin_="/opt/this/bin")
    assert [line for line in refused.stderr.splitlines() if "newer version of the gateway" in line], refused
    assert "Traceback" not in refused.stderr and refused.returncode == 2
    told = site.script("upgrade.sh", "--back")
    assert "in force again" in told and site.version() == here
    after = json.loads(site.gateway("database", "show", "--json").stdout)
    assert after["revision"] == before["revision"]
    site.wait_ready()
    site.carries(3)


def test_what_came_after_an_upgrade_is_kept_on_the_way_back(site: Installed) -> None:
    here = site.version()
    site.script("upgrade.sh", "--venv", "/opt/next")
    site.wait_ready()
    site.carries(4)
    told = site.script("upgrade.sh", "--back")
    assert "with all rows" in told and site.version() == here
    site.wait_ready()
    assert retrieve(site, ct(4)) == [encode(ct(4))]
    site.carries(5)


def test_an_upgrade_that_cannot_be_changes_nothing(site: Installed) -> None:
    """A configuration that the new release refuses; nothing stops, and nothing is left in force."""
    here = site.version()
    starts = [site.starts(role) for role in ROLES]
    site.machine.run("sh", "-c", f"cp {ETC}/gateway.toml /tmp/kept && echo '[nonsense]' >> {ETC}/gateway.toml")
    try:
        told = site.script("upgrade.sh", "--venv", "/opt/next", check=False)
    finally:
        site.machine.run("cp", "/tmp/kept", f"{ETC}/gateway.toml")
    assert "nothing was changed" in told and site.version() == here
    assert [site.starts(role) for role in ROLES] == starts
    told = site.script("install.sh", "--venv", "/opt/next", check=False)
    assert "deploy/upgrade.sh" in told and site.version() == here
