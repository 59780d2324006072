"""What is not what was stored is never sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.audit import events
from gateway.restore.held import HeldMemory
from tests.network.retrieve.conftest import plain
from tests.network.retrieve.test_dcmtk import get, keys, move
from tests.network.retrieve.test_store import ask
from tests.support.network import peers
from tests.support.retrieve.samples import MR_SYNTAXES, received, samples
from tests.support.retrieve.vaults import build_site

pytestmark = pytest.mark.peers


@pytest.fixture
def own_site(tmp_path):
    """A vault that this test may damage: one study of five, and a CT."""
    return build_site(tmp_path / "own", [s for s in samples() if s.name in (*MR_SYNTAXES, "ct")])


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_flipped_bit_fails_one_suboperation_and_no_other(own_site, start_scp, tmp_path, audit, place):
    flip(own_site.payload("mr-rle"), place)
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port), of=own_site)
        said = move(scp, "-P", *keys("PATIENT", PatientID="4MR1"))
    assert "SubOperationsCompleteOneOrMoreFailures" in said
    good = [own_site.samples[name] for name in MR_SYNTAXES if name != "mr-rle"]
    assert received(tmp_path / "store") == {s.uid: s.data for s in good}
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert (line["event_id"], line["outcome"]) == ("110113", "failure")
    assert line["locator"] == own_site.records["mr-rle"].locator
    (line,) = audit.lines(events.RETRIEVE)
    assert (line["completed"], line["failed"]) == (4, 1)


def test_get_of_a_damaged_original_brings_nothing(own_site, start_scp, tmp_path):
    flip(own_site.payload("ct"), "middle")
    scp = start_scp(plain(), of=own_site)
    brought, said = get(scp, tmp_path / "got", "-S", *keys("STUDY", StudyInstanceUID=own_site.samples["ct"].study))
    assert brought == {}
    assert "OutOfResourcesSubOperations" in said


def test_a_copy_of_a_damaged_original(own_site, start_scp, tmp_path):
    flip(own_site.payload("ct"), "middle")
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port), of=own_site)
        assert ask(scp, own_site, "ct").status == 0xC001
    assert received(tmp_path / "store") == {}


def test_a_lost_payload(own_site, start_scp, tmp_path, audit):
    own_site.payload("ct").unlink()
    scp = start_scp(plain(), of=own_site)
    brought, said = get(scp, tmp_path / "got", "-S", *keys("STUDY", StudyInstanceUID=own_site.samples["ct"].study))
    assert brought == {}
    assert "OutOfResourcesSubOperations" in said
    assert len(audit.lines(events.RESTORE_REFUSED)) == 1


def test_payloads_exchanged_for_one_another_are_found_out(own_site, start_scp, tmp_path):
    """Two originals of the same class and syntax, each sealed well, each in the other's place."""
    one, other = own_site.payload("ct"), own_site.payload("mr-implicit")
    bytes_of_one = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(bytes_of_one)
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port), of=own_site)
        move(scp, "-S", *keys("STUDY", StudyInstanceUID=own_site.samples["ct"].study))
    assert received(tmp_path / "store") == {}


def test_a_file_that_changes_between_the_two_readings(own_site, start_scp, tmp_path, audit):
    """Verified, then changed before it is sent: the association breaks off and no whole object has arrived."""
    sample = own_site.samples["ct"]
    own_site.restorer._memory = HeldMemory(each=0)  # as for an original that is too large to be held
    restorer = ChangesAfterVerify(own_site.restorer, own_site.payload("ct"))
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port), of=replace(own_site, restorer=restorer))
        said = move(scp, "-S", *keys("STUDY", StudyInstanceUID=sample.study))
    assert "OutOfResourcesSubOperations" in said
    assert sample.data not in [path.read_bytes()[-len(sample.data) :] for path in (tmp_path / "store").iterdir()]
    assert len(audit.lines(events.RESTORE_REFUSED)) == 1


class ChangesAfterVerify:
    """The real restorer, with somebody at the disk at the worst moment."""

    def __init__(self, restorer, payload) -> None:
        self._restorer = restorer
        self._payload = payload

    def by_locators(self, locators: list[str], named=None):
        found = self._restorer.by_locators(locators, named)
        if named is None:  # looked up to be sent
            for original in found.values():
                self._change_after_verifying(original)
        return found

    def _change_after_verifying(self, original) -> None:
        verify = original.verify

        def verify_then_change() -> None:
            verify()
            flip(self._payload, "middle")

        object.__setattr__(original, "verify", verify_then_change)


def flip(path, place: str) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    at = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[place]
    data[at] ^= 0x01
    path.chmod(0o600)
    path.write_bytes(data)
