"""Sealed originals in an object store: SeaweedFS, there and away, with TLS and with accounts that may too little."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import bucket
from gateway.config.secret import SecretRef
from gateway.config.store import Store
from gateway.errors import CapacityError, ConfigError, GatewayError, NotFoundError, VaultError
from gateway.vault.objects import ObjectPayloads
from gateway.vault.payloads import Payloads, PayloadStore
from tests.conftest import needed
from tests.support.network.certificates import Authority
from tests.support.network.peers import free_port
from tests.support.objects import SeaweedFs
from tests.support.until import until

pytestmark = pytest.mark.peers
needed("obstore")

LOCATOR, OTHER = "ab" * 16, "cd" * 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFs]:
    server = SeaweedFs(tmp_path_factory.mktemp("objects"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(server: SeaweedFs, request: pytest.FixtureRequest) -> Store:
    """Each test has names of its own."""
    return server.settings(url=f"s3://vault/{request.node.name.replace('[', '-').strip(']')}")


@pytest.fixture(params=["folder", "objects"])
def payloads(request: pytest.FixtureRequest, tmp_path: Path) -> Payloads:
    """Both places for payloads: what is asked of one is asked of the other."""
    if request.param == "folder":
        return PayloadStore(tmp_path / "vault")
    return ObjectPayloads(request.getfixturevalue("settings"), tmp_path / "scratch")


def code_of(call) -> str:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.code


def writes(data: bytes):
    return lambda file: file.write(data)


def test_a_payload_is_there_whole_until_it_is_deleted(payloads: Payloads):
    data = os.urandom(300_000)
    assert not payloads.exists(LOCATOR) and list(payloads.locators()) == []
    payloads.put(LOCATOR, writes(data))
    payloads.put(OTHER, writes(b"other"))
    assert payloads.exists(LOCATOR) and payloads.size(LOCATOR) == len(data)
    with payloads.open(LOCATOR) as file:
        assert os.fstat(file.fileno()).st_size == len(data)
        assert file.read() == data
    assert sorted(payloads.locators()) == [LOCATOR, OTHER]
    assert payloads.delete(LOCATOR) and not payloads.delete(LOCATOR)
    assert list(payloads.locators()) == [OTHER] and payloads.sweep(1e12) == 0


def test_what_is_there_is_never_written_over(payloads: Payloads):
    payloads.put(LOCATOR, writes(b"first"))
    payloads.put(LOCATOR, lambda file: pytest.fail("there was no need to write it"))
    with payloads.open(LOCATOR) as file:
        assert file.read() == b"first"


def test_what_fails_while_it_is_written_leaves_nothing(payloads: Payloads):
    def breaks(file) -> None:
        file.write(b"half")
        raise DicomBreaks

    with pytest.raises(DicomBreaks):
        payloads.put(LOCATOR, breaks)
    assert not payloads.exists(LOCATOR)


class DicomBreaks(Exception):
    pass


def test_names_lead_nowhere_else(payloads: Payloads):
    for name in ("", "..", "../other", "AB" * 16, f"{LOCATOR}/x", f"{LOCATOR}\n"):
        for call in (payloads.open, payloads.exists, payloads.size, payloads.delete):
            assert code_of(lambda call=call, name=name: call(name)) == "bad-locator"
    for call in (payloads.open, payloads.size):
        with pytest.raises(NotFoundError):
            call(OTHER)


def test_two_that_put_at_once_both_succeed(settings: Store, tmp_path: Path):
    one, two = (ObjectPayloads(settings, tmp_path / name) for name in ("one", "two"))

    def overtaken(file) -> None:
        two.put(LOCATOR, writes(b"quicker"))
        file.write(b"slower")

    one.put(LOCATOR, overtaken)
    with one.open(LOCATOR) as file:
        assert file.read() == b"quicker"


@pytest.mark.full
def test_a_long_payload_goes_in_parts(settings: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bucket, "LARGEST_WHOLE", 1 << 20)
    monkeypatch.setattr(bucket, "_PART", 5 << 20)
    data = os.urandom((11 << 20) + 3)
    store = ObjectPayloads(settings, tmp_path)
    store.put(LOCATOR, writes(data))
    with store.open(LOCATOR) as file:
        assert file.read() == data


def test_an_open_payload_stays_what_it_was(settings: Store, tmp_path: Path):
    store = ObjectPayloads(settings, tmp_path)
    store.put(LOCATOR, writes(b"original"))
    with store.open(LOCATOR) as file:
        store.delete(LOCATOR)
        assert file.read() == b"original"
    assert list(tmp_path.iterdir()) == []  # what was on its way has no name


def test_sites_in_one_bucket_see_nothing_of_each_other(settings: Store, tmp_path: Path):
    ours = ObjectPayloads(settings, tmp_path)
    theirs = ObjectPayloads(settings.model_copy(update={"url": f"{settings.url}-2"}), tmp_path)
    theirs.put(LOCATOR, writes(b"theirs"))
    assert not ours.exists(LOCATOR) and list(ours.locators()) == []


def test_an_account_that_may_read_alone_is_told_so(server: SeaweedFs, settings: Store, tmp_path: Path):
    ObjectPayloads(settings, tmp_path).put(LOCATOR, writes(b"sealed"))
    reader = ObjectPayloads(server.reader().model_copy(update={"url": settings.url}), tmp_path)
    with reader.open(LOCATOR) as file:
        assert file.read() == b"sealed"
    assert code_of(lambda: reader.put(OTHER, writes(b"more"))) == "store-refused"
    assert code_of(lambda: reader.delete(LOCATOR)) == "store-refused"


def test_a_wrong_account_waits_and_shows_no_secret(server: SeaweedFs, tmp_path: Path):
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("some-other-secret")
    store = ObjectPayloads(server.settings(secret_access_key=SecretRef(f"file:{tmp_path / 'key'}")), tmp_path)
    with pytest.raises(CapacityError) as caught:
        store.put(LOCATOR, writes(b"sealed"))
    assert caught.value.code == "store-refused"
    assert "some-other-secret" not in str(caught.value) and "gateway" not in str(caught.value)
    assert caught.value.__suppress_context__  # the library's words quote the request


def test_a_store_that_says_nothing_is_given_up(server: SeaweedFs, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = server.settings(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)
        assert code_of(lambda: ObjectPayloads(settings, tmp_path).put(LOCATOR, writes(b"x"))) == "store-unreachable"


def test_variables_of_the_environment_change_nothing(server: SeaweedFs, settings: Store, tmp_path: Path, monkeypatch):
    changed = {"ACCESS_KEY_ID": "other", "SECRET_ACCESS_KEY": "other", "SESSION_TOKEN": "other", "REGION": "other"}
    changed |= {"ENDPOINT": "http://127.0.0.1:1", "ENDPOINT_URL": "http://127.0.0.1:1", "BUCKET": "other"}
    changed |= {"ENDPOINT_URL_S3": "http://127.0.0.1:1", "SKIP_SIGNATURE": "true", "CONDITIONAL_PUT": "disabled"}
    for name, value in changed.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    store = ObjectPayloads(settings, tmp_path)
    store.put(LOCATOR, writes(b"sealed"))
    monkeypatch.undo()
    with ObjectPayloads(settings, tmp_path).open(LOCATOR) as file:
        assert file.read() == b"sealed"


def test_nobody_there_is_waited_for(tmp_path: Path, server: SeaweedFs):
    store = ObjectPayloads(server.settings(endpoint=f"http://127.0.0.1:{free_port()}", timeout_s=1), tmp_path)
    for call in (lambda: store.put(LOCATOR, writes(b"x")), lambda: store.open(LOCATOR), lambda: list(store.locators())):
        assert code_of(call) == "store-unreachable"


@pytest.mark.full
def test_tls_is_checked(tmp_path: Path):
    authority = Authority(tmp_path / "tls")
    server = SeaweedFs(tmp_path / "server", authority.issue("store"))
    server.start()
    try:
        trusted = ObjectPayloads(server.settings(trust=authority.trust), tmp_path)
        trusted.put(LOCATOR, writes(b"sealed"))
        with trusted.open(LOCATOR) as file:
            assert file.read() == b"sealed"
        strange = Authority(tmp_path / "strange", "another CA").trust
        for trust in (None, strange):
            unsure = ObjectPayloads(server.settings(trust=trust, timeout_s=2), tmp_path)
            assert code_of(lambda unsure=unsure: unsure.exists(LOCATOR)) == "store-unreachable"
    finally:
        server.stop()


@pytest.mark.parametrize(
    "content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"]
)
def test_a_trust_that_is_none_trusts_nobody(tmp_path: Path, server: SeaweedFs, content: str):
    (tmp_path / "ca.pem").write_text(content)
    settings = server.settings(trust=tmp_path / "ca.pem", endpoint="https://127.0.0.1:1", timeout_s=1)
    with pytest.raises((ConfigError, CapacityError)):
        ObjectPayloads(settings, tmp_path).look()


def test_a_bucket_that_is_not_there_is_told_of(server: SeaweedFs, tmp_path: Path):
    with pytest.raises(CapacityError) as caught:
        ObjectPayloads(server.settings(url="s3://no-such-bucket"), tmp_path).look()
    assert "there is no such bucket" in str(caught.value)


def test_a_store_that_holds_something_else_is_not_believed(settings: Store, tmp_path: Path, monkeypatch):
    store = ObjectPayloads(settings, tmp_path)
    monkeypatch.setattr(store, "size", lambda name: 3)
    monkeypatch.setattr(store, "exists", lambda name: False)
    with pytest.raises(VaultError) as caught:
        store.put(LOCATOR, writes(b"sealed"))
    assert caught.value.code == "store-differs"


@pytest.mark.full
def test_one_of_two_disks_may_be_lost(tmp_path: Path):
    """What lies on both is read; nothing is confirmed that would lie on one alone, until there is a second again."""
    server = SeaweedFs(tmp_path / "server", volumes=2)
    try:
        server.start()
        assert server.flushes()
        payloads = ObjectPayloads(server.settings(timeout_s=2), tmp_path)
        payloads.put(LOCATOR, writes(b"on both"))
        lost, left = server.volumes
        lost.lose()
        with payloads.open(LOCATOR) as file:
            assert file.read() == b"on both"
        assert code_of(lambda: payloads.put(OTHER, writes(b"on one"))) == "store-unreachable"
        lost.start()

        def is_put() -> bool:
            try:
                payloads.put(OTHER, writes(b"on both"))
            except CapacityError:
                return False
            return True

        until("the empty disk is used", is_put)
        with payloads.open(LOCATOR) as file:
            assert file.read() == b"on both"
        with payloads.open(OTHER) as file:  # what was not confirmed may have come to be when the disk was there
            second = file.read()
        assert second in (b"on one", b"on both")
        left.lose()  # the first was on this alone; the second is on the new one as well
        with payloads.open(OTHER) as file:
            assert file.read() == second
    finally:
        server.stop()
