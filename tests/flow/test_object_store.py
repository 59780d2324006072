"""The whole way with the vault in an object store: sealed there, waited for while it is away, restored bit-exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from gateway.config import load_config
from gateway.database import InstanceRow, VaultRow, reading
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import GatewayError
from gateway.flow.store import RECEIVED
from gateway.keys.generate import make_keys
from gateway.service.wiring import build_restorer
from gateway.vault import open_payloads
from gateway.vault.backup import backup
from gateway.vault.recovery import recover
from gateway.vault.verify import verify_vault
from tests.conftest import needed
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, configuration, ct
from tests.support.objects import SeaweedFs

pytestmark = pytest.mark.peers
needed("obstore")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFs]:
    server = SeaweedFs(tmp_path_factory.mktemp("objects"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def flow(server: SeaweedFs, tmp_path: Path) -> Flow:
    make_keys(tmp_path / "keys")
    config = configuration(tmp_path / "state", tmp_path / "keys")
    return Flow(config.model_copy(update={"store": server.settings(url=f"s3://vault/{tmp_path.name}")}))


def _make_due(flow: Flow) -> None:
    """What waits is tried again now."""
    with Session(flow.engine) as session, session.begin():
        session.execute(update(InstanceRow).values(next_attempt_at=0.0))


def restored(flow: Flow, uid: str, **changes: object) -> bytes:
    """By what the restore role builds, under an account that may read alone."""
    with build_restorer(flow.config.model_copy(update=changes), flow.engine).by_uid(uid) as original:
        original.verify()
        return b"".join(original.stream())


def test_originals_lie_sealed_in_the_store_and_come_back_bit_exact(flow: Flow, server: SeaweedFs):
    ds = ct()
    data = encode(ds, EXPLICIT_LITTLE)
    flow.receive(ds)
    flow.run()
    assert len(flow.sender.received) == 1
    (locator,) = open_payloads(flow.config).locators()
    assert list((flow.config.site.state / "vault").iterdir()) == []
    with open_payloads(flow.config).open(locator) as file:
        sealed = file.read()
    for part in (data[:64], data[-512:], bytes(ds.PixelData)[:64], str(ds.SOPInstanceUID).encode()):
        assert part not in sealed
    only_reads = {"store": server.reader().model_copy(update={"url": flow.config.store.url})}
    assert restored(flow, ds.SOPInstanceUID, **only_reads) == data
    assert restored(flow, flow.sender.received[0][1].sop_instance_uid, **only_reads) == data
    assert [one.ok for one in verify_vault(flow.config)] == [True]


@pytest.mark.full
def test_while_the_store_is_away_nothing_is_lost_and_nothing_leaves(tmp_path: Path):
    server = SeaweedFs(tmp_path / "objects")
    make_keys(tmp_path / "keys")
    config = configuration(tmp_path / "state", tmp_path / "keys")
    flow = Flow(config.model_copy(update={"store": server.settings(timeout_s=1)}))
    ds = ct()
    instance = flow.receive(ds)
    flow.run()
    row = flow.row(instance)
    assert (row.state, row.reason_code) == (RECEIVED, "store-unreachable")
    assert flow.sender.received == [] and len(flow.spooled()) == 1
    server.start()
    try:
        _make_due(flow)
        flow.run()
        assert len(flow.sender.received) == 1
        assert restored(flow, ds.SOPInstanceUID) == encode(ds, EXPLICIT_LITTLE)
        server.stop()
        with pytest.raises(GatewayError) as caught:
            restored(flow, ds.SOPInstanceUID)
        assert caught.value.code == "store-unreachable"
        server.start()
        assert restored(flow, ds.SOPInstanceUID) == encode(ds, EXPLICIT_LITTLE)
    finally:
        server.stop()


def test_a_changed_object_is_refused(flow: Flow):
    import obstore

    ds = ct()
    flow.receive(ds)
    flow.run()
    payloads = open_payloads(flow.config)
    (locator,) = payloads.locators()
    with payloads.open(locator) as file:
        sealed = bytearray(file.read())
    sealed[len(sealed) // 2] ^= 1
    obstore.put(payloads._store, locator, bytes(sealed))
    with pytest.raises(GatewayError) as caught:
        restored(flow, ds.SOPInstanceUID)
    assert caught.value.code == "payload-tampered"


def test_retention_ends_in_the_store_too(flow: Flow):
    flow.receive(ct())
    flow.run()
    protector = flow.context.protector
    assert protector.expire(1e12, (), 10, lambda locator: None) == 1
    assert list(open_payloads(flow.config).locators()) == []
    with reading(flow.engine) as session:
        assert session.query(VaultRow).one().payload_file is None


def test_a_backup_brings_the_originals_back_into_a_folder(flow: Flow, tmp_path: Path):
    ds = ct()
    flow.receive(ds)
    flow.run()
    words = "quite a few words that do not belong together"
    backup(flow.config, tmp_path / "backup", words)
    config = load_config(recover(tmp_path / "backup", tmp_path / "new", words).config)
    assert config.store is None
    with build_restorer(config).by_uid(ds.SOPInstanceUID) as original:
        original.verify()
        assert b"".join(original.stream()) == encode(ds, EXPLICIT_LITTLE)
