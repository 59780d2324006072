"""The egress against real destinations (DCMTK, Orthanc) and against ones that refuse, fail and fall silent."""

from __future__ import annotations

import io
import socket
import threading
import time

import pytest
from pynetdicom import AE, evt

from gateway.audit import events
from gateway.config.models import Destination
from gateway.errors import PermanentError, SealError, TransientError
from gateway.flow.statuses import delivered
from gateway.network import command as dimse
from gateway.network.connect import Peer, connect
from gateway.network.egress import Egress
from gateway.network.presence import reason_not_to_listen
from tests.network.test_ingress import SYNTAXES, until
from tests.support.network import peers, raw
from tests.support.network.certificates import Authority
from tests.support.network.samples import (
    BIG,
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG_LS,
    MR,
    ct,
    data_set_bytes,
    outgoing,
    pydicom_file,
)


@pytest.fixture
def egress(audit):
    """Make an egress with destinations named as the keyword arguments, on the ports given."""
    made = []

    def make(more=None, **ports) -> Egress:
        settings = {"type": "research", "ae_title": "OUTSIDE", "host": "127.0.0.1"}
        settings.update(connect_timeout_s=20, response_timeout_s=30, idle_release_s=5)
        settings.update(more or {})
        made.append(Egress([Destination(name=name, port=port, **settings) for name, port in ports.items()], audit))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def scp():
    """A stock pynetdicom SCP; its statuses, associations and received objects can be set and read."""

    class Scp:
        def __init__(self) -> None:
            self.status = 0x0000
            self.associations = 0
            self.received: list[bytes] = []
            self.delay_s = 0.0
            self.max_pdu = 16_382
            self.syntaxes = [IMPLICIT, EXPLICIT, JPEG_LS]
            self.classes = [CT, MR]
            self.called = []
            self._server = None

        def start(self) -> int:
            ae = AE("OUTSIDE")
            ae.maximum_pdu_size = self.max_pdu
            ae.require_called_aet = bool(self.called)
            for sop_class in self.classes:
                ae.add_supported_context(sop_class, self.syntaxes)
            ae.add_supported_context("1.2.840.10008.1.1")
            handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ESTABLISHED, self._established)]
            self.port = peers.free_port()
            self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
            return self.port

        def _established(self, event) -> None:
            self.associations += 1

        def _store(self, event) -> int:
            time.sleep(self.delay_s)
            self.received.append(event.request.DataSet.getvalue())
            return self.status

        def stop(self) -> None:
            if self._server:
                self._server.ae.shutdown()
                self._server = None

    scp = Scp()
    yield scp
    scp.stop()


@pytest.mark.peers
def test_dcmtk_stores_the_bytes_in_every_transfer_syntax(egress, tmp_path):
    """Compressed and native alike, over one association after the other, bit-preserving at the other end."""
    with peers.storescp(tmp_path / "out", "+xa", "-pm") as port:
        sender = egress(outside=port)
        sent = {}
        for number, (_, name, syntax) in enumerate(SYNTAXES):
            path = pydicom_file(name)
            sop_class = _sop_class(path)
            data, uid = data_set_bytes(path), f"1.2.3.{number}"
            data += bytes(len(data) % 2)  # the deflated file is odd; PS3.5 A.5 wants it padded, and DCMTK insists
            assert sender.send("outside", outgoing(data, uid, syntax, sop_class)) == 0x0000
            sent[uid] = data
        stored = {path.name.partition(".")[2]: data_set_bytes(path) for path in (tmp_path / "out").iterdir()}
    assert stored == sent


def _sop_class(path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, stop_before_pixels=True).SOPClassUID)


@pytest.mark.peers
@pytest.mark.parametrize("pdu", [4096, 131_072])
def test_large_objects_go_in_pdus_of_the_peers_length(egress, tmp_path, pdu):
    uid, data = ct(1024)
    with peers.storescp(tmp_path / "out", "-pdu", str(pdu)) as port:
        egress(outside=port).send("outside", outgoing(data, uid))
    (stored,) = (tmp_path / "out").iterdir()
    assert data_set_bytes(stored) == data


@pytest.mark.peers
@pytest.mark.parametrize("window", [1, 8])  # Orthanc grants none
def test_orthanc_as_the_outside_archive(egress, tmp_path, window):
    items = [(EXPLICIT, *ct(128)), (IMPLICIT, *ct(64, IMPLICIT))]
    with peers.orthanc() as outside:
        sender = egress({"async_operations": window}, outside=outside.port)
        for syntax, uid, data in items:
            assert sender.send("outside", outgoing(data, uid, syntax)) == 0x0000
        files = [outside.file(instance) for instance in outside.instances()]
    stored = set()
    for number, file in enumerate(files):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(file)
        stored.add(data_set_bytes(path))
    assert stored == {data for _, _, data in items}


@pytest.mark.peers
def test_a_destination_for_implicit_only_gets_the_instance_in_that(egress, tmp_path):
    uid, data = ct()
    implicit = ct(syntax=IMPLICIT)[1]
    turned = []

    def in_syntax(syntax: str) -> io.BytesIO:
        turned.append(syntax)
        return io.BytesIO(implicit)

    with peers.storescp(tmp_path / "out", "+xi") as port:
        egress(outside=port).send("outside", outgoing(data, uid, in_syntax=in_syntax))
    (stored,) = (tmp_path / "out").iterdir()
    assert turned == [IMPLICIT] and data_set_bytes(stored) == implicit


def test_the_own_syntax_is_preferred_over_a_turned_one(egress, scp):
    scp.start()
    uid, data = ct()

    def in_syntax(syntax: str) -> io.BytesIO:
        raise AssertionError("not needed")

    egress(outside=scp.port).send("outside", outgoing(data, uid, in_syntax=in_syntax))
    assert scp.received == [data]


@pytest.mark.peers
def test_a_refused_context_is_permanent_and_does_not_stop_the_others(egress, tmp_path, audit):
    uid, data = ct()
    with peers.storescp(tmp_path / "out", "+xe") as port:
        sender = egress(outside=port)
        for _ in range(2):
            with pytest.raises(PermanentError) as caught:
                sender.send("outside", outgoing(b"x" * 10, "1.2.3", JPEG_LS))
            assert caught.value.code == "context-refused"
        assert sender.send("outside", outgoing(data, uid)) == 0
    assert len(list((tmp_path / "out").iterdir())) == 1
    lines = audit.lines(events.DELIVERY)
    assert [line["outcome"] for line in lines] == ["failure", "failure", "success"]
    assert lines[0]["reason"] == "context-refused" and lines[0]["sop_instance_uid"] == "1.2.3"


def test_a_refused_context_costs_no_association_each_time(egress, scp):
    scp.start()
    sender = egress(outside=scp.port)
    for _ in range(5):
        with pytest.raises(PermanentError):
            sender.send("outside", outgoing(b"x" * 10, "1.2.3", BIG))
    assert scp.associations == 1


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111, 0x0107])
def test_what_is_stored_is_returned(egress, scp, audit, status):
    scp.status = status
    scp.start()
    assert egress(outside=scp.port).send("outside", outgoing(b"x" * 10, "1.2.3")) == status
    assert audit.lines(events.DELIVERY)[0]["status"] == f"0x{status:04X}"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, TransientError),
        (0xA7FF, TransientError),
        (0x0110, TransientError),
        (0x0213, TransientError),
        (0xA900, PermanentError),
        (0xA901, PermanentError),
        (0xC000, PermanentError),
        (0xC123, PermanentError),
        (0x0117, PermanentError),
        (0x0122, PermanentError),
        (0x0124, PermanentError),
        (0xFE00, PermanentError),
        (0x7777, PermanentError),
    ],
)
def test_failures_are_sorted_and_the_association_is_kept(egress, scp, audit, status, error):
    scp.status = status
    scp.start()
    sender = egress(outside=scp.port)
    with pytest.raises(error) as caught:
        sender.send("outside", outgoing(b"x" * 10, "1.2.3", instance_id="abc"))
    assert caught.value.code == f"status-{status:04x}" and not delivered(status)
    (line,) = audit.lines(events.DELIVERY)
    assert line["outcome"] == "failure" and line["status"] == f"0x{status:04X}" and line["instance_id"] == "abc"
    scp.status = 0x0000
    assert sender.send("outside", outgoing(b"x" * 10, "1.2.3")) == 0 and scp.associations == 1


def test_one_association_serves_many_and_grows_with_need(egress, scp):
    scp.start()
    sender = egress(outside=scp.port)
    for number in range(5):
        sender.send("outside", outgoing(b"x" * 10, f"1.2.{number}"))
    assert scp.associations == 1
    for number in range(6):  # a study of two kinds, mixed
        sender.send("outside", outgoing(b"x" * 10, f"1.3.{number}", sop_class=(CT, MR)[number % 2]))
    assert scp.associations == 2


def test_more_kinds_than_contexts_still_go(egress, scp, monkeypatch):
    monkeypatch.setattr("gateway.network.pool.MOST_CONTEXTS", 2)
    scp.start()
    sender = egress(outside=scp.port)
    kinds = [(CT, EXPLICIT), (MR, EXPLICIT), (CT, JPEG_LS), (CT, EXPLICIT)]
    for number, (sop_class, syntax) in enumerate(kinds):
        assert sender.send("outside", outgoing(b"x" * 10, f"1.2.{number}", syntax, sop_class)) == 0
    assert len(scp.received) == 4


def test_an_idle_association_is_released(egress, scp):
    scp.start()
    sender = egress({"idle_release_s": 0.3}, outside=scp.port)
    sender.send("outside", outgoing(b"x" * 10, "1.2.3"))
    assert len(scp._server.active_associations) == 1
    assert until(lambda: not scp._server.active_associations, 3)
    sender.send("outside", outgoing(b"x" * 10, "1.2.4"))
    assert scp.associations == 2


def test_a_destination_that_is_down_is_tried_again_and_audited_once(egress, scp, audit):
    scp.start()
    scp.stop()
    sender = egress(outside=scp.port)
    for _ in range(3):
        with pytest.raises(TransientError) as caught:
            sender.send("outside", outgoing(b"x" * 10, "1.2.3"))
        assert caught.value.code == "unreachable"
    assert len(audit.lines(events.DELIVERY)) == 1


@pytest.mark.peers
def test_a_destination_that_restarts_costs_nothing(egress, tmp_path):
    port = peers.free_port()
    sender = egress(outside=port)
    for number in range(2):
        options = ("-aet", "OUTSIDE", "-od", tmp_path, "+B", port)
        with peers.running("storescp", *options, port=port):
            assert sender.send("outside", outgoing(b"x" * 10, f"1.2.{number}")) == 0
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("CT.")]) == 2


@pytest.mark.peers
@pytest.mark.parametrize(
    ("option", "error", "codes"),
    [
        ("--abort-during", TransientError, {"association-aborted", "connection-lost"}),
        ("--abort-after", TransientError, {"association-aborted", "connection-lost"}),
        ("--refuse", PermanentError, {"association-rejected"}),
    ],
)
def test_dcmtk_that_aborts_or_refuses(egress, tmp_path, option, error, codes):
    uid, data = ct(512)
    with peers.storescp(tmp_path / "out", option) as port:
        with pytest.raises(error) as caught:
            egress(outside=port).send("outside", outgoing(data, uid))
        assert caught.value.code in codes


def test_a_destination_with_another_ae_title_is_permanent_and_says_so(egress, scp):
    scp.called = ["SOMEONE"]
    scp.start()
    with pytest.raises(PermanentError) as caught:
        egress({"ae_title": "ELSE"}, outside=scp.port).send("outside", outgoing(b"x" * 10, "1.2.3"))
    assert caught.value.code == "association-rejected" and "Called AE title not recognised" in caught.value.message


@pytest.mark.parametrize(("patience_s", "code"), [(0.5, "no-answer"), (300, "connection-lost")])
def test_a_destination_that_falls_silent_is_given_up_and_stalls_no_other(egress, scp, patience_s, code):
    scp.start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = egress({"response_timeout_s": patience_s}, silent=silent.getsockname()[1], outside=scp.port)
        caught = []

        def wait_for_silent() -> None:
            try:
                sender.send("silent", outgoing(b"x" * 10, "1.2.3"))
            except TransientError as error:
                caught.append(error.code)

        waiting = threading.Thread(target=wait_for_silent)
        waiting.start()
        connection, _ = silent.accept()
        if patience_s > 1:
            assert sender.send("outside", outgoing(b"x" * 10, "1.2.4")) == 0
            assert waiting.is_alive()
            connection.close()
        waiting.join(60)
        connection.close()
        assert caught == [code]


def test_a_slow_answer_is_given_up(egress, scp):
    scp.delay_s = 2
    scp.start()
    with pytest.raises(TransientError) as caught:
        egress({"response_timeout_s": 0.5}, outside=scp.port).send("outside", outgoing(b"x" * 10, "1.2.3"))
    assert caught.value.code == "no-answer"


@pytest.mark.peers
def test_a_stream_that_breaks_never_looks_like_a_whole_object(egress, tmp_path):
    """A spool file that was tampered with shows it in the middle: the destination must not store the first part."""

    class Tampered(io.RawIOBase):
        parts = 3

        def read(self, size: int = -1) -> bytes:
            self.parts -= 1
            if self.parts == 0:
                raise SealError("tampered", "the spool file was changed")
            return bytes(size)

    uid, data = ct()
    with peers.storescp(tmp_path / "out") as port:
        sender = egress(outside=port)
        item = outgoing(data, "1.2.3")
        broken = type(item)(**{**vars(item), "open": Tampered})
        with pytest.raises(SealError):
            sender.send("outside", broken)
        assert sender.send("outside", outgoing(data, uid)) == 0
        assert [data_set_bytes(path) for path in (tmp_path / "out").iterdir()] == [data]


def test_a_thousand_megabytes_need_no_memory(egress, scp):
    """The stream is read as the socket takes it."""
    scp.start()
    high = []

    class Long(io.RawIOBase):
        left = 64

        def read(self, size: int = -1) -> bytes:
            high.append(size)
            self.left -= 1
            return bytes(size) if self.left else b""

    item = outgoing(b"", "1.2.3")
    egress(outside=scp.port).send("outside", type(item)(**{**vars(item), "open": Long}))
    assert max(high) <= scp.max_pdu and len(scp.received[0]) > 60 * 16_000


def test_several_threads_on_one_destination_take_turns(egress, scp):
    scp.start()
    sender = egress(outside=scp.port)
    sent = dict(ct(32 + n) for n in range(8))
    threads = [threading.Thread(target=sender.send, args=("outside", outgoing(d, u))) for u, d in sent.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert sorted(scp.received) == sorted(sent.values()) and scp.associations == 1


def test_associations_that_cannot_be_looked_after_are_used_all_the_same(egress, scp, monkeypatch):
    """A pool that lost one while it looked whether it is idle would let everybody wait for it for ever."""
    scp.start()
    looked = threading.Event()

    def breaks(self) -> None:
        looked.set()
        raise ValueError

    monkeypatch.setattr("gateway.network.pool.Link.release_if_idle", breaks)
    sender = egress({"idle_release_s": 0.04}, outside=scp.port)
    for number in range(2):
        assert looked.wait(50)
        looked.clear()
        assert sender.send("outside", outgoing(b"x" * 10, f"1.2.{number}")) == 0
    assert sender._janitor.is_alive()


@pytest.mark.peers
def test_tls_with_the_destinations_certificate_verified(egress, tmp_path, authority):
    uid, data = ct()
    theirs, ours = authority.issue("outside"), authority.issue("gateway")
    tls = ("--fork", "+tls", str(theirs.private_key), str(theirs.certificate), "+cf", str(theirs.trust))
    with peers.storescp(tmp_path / "out", *tls) as port:
        assert egress({"tls": ours}, outside=port).send("outside", outgoing(data, uid)) == 0
        assert egress({"tls": ours, "host": "localhost"}, outside=port).send("outside", outgoing(data, "1.2.3")) == 0
        strangers = Authority(tmp_path / "other").issue("gateway")
        with pytest.raises(TransientError) as caught:
            egress({"tls": strangers}, outside=port).send("outside", outgoing(data, "1.2.4"))
        assert caught.value.code == "certificate-not-trusted"
        with pytest.raises(TransientError):
            egress(outside=port).send("outside", outgoing(data, "1.2.5"))
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.peers
def test_a_certificate_for_another_host_is_refused(egress, tmp_path, authority, monkeypatch):
    theirs, ours = authority.issue("outside"), authority.issue("gateway")
    tls = ("+tls", str(theirs.private_key), str(theirs.certificate), "+cf", str(theirs.trust))
    real = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda where, *a: real(("127.0.0.1", where[1]), *a))
    with peers.storescp(tmp_path / "out", *tls) as port, pytest.raises(TransientError) as caught:
        egress({"tls": ours, "host": "archive.example"}, outside=port).send("outside", outgoing(b"x" * 10, "1.2.3"))
    assert caught.value.code == "certificate-not-trusted"


def test_a_plain_destination_on_a_tls_line_is_refused(egress, scp, authority):
    scp.start()
    with pytest.raises((PermanentError, TransientError)):
        egress({"tls": authority.issue("gateway")}, outside=scp.port).send("outside", outgoing(b"x" * 10, "1.2.3"))
    assert not scp.received


@pytest.mark.peers
def test_echo(egress, tmp_path):
    with peers.storescp(tmp_path / "out") as port:
        egress(outside=port).echo("outside")
    with pytest.raises(TransientError):
        egress(outside=port).echo("outside")


def test_delivery_goes_on_when_its_audit_line_cannot_be_written(egress, scp, audit, caplog):
    scp.start()
    audit.path.mkdir()
    assert egress(outside=scp.port).send("outside", outgoing(b"x" * 10, "1.2.3")) == 0
    assert "audit line" in caplog.text
    audit.path.rmdir()


def test_an_unknown_destination(egress):
    with pytest.raises(PermanentError) as caught:
        egress().send("nowhere", outgoing(b"x" * 10, "1.2.3"))
    assert caught.value.code == "unknown-destination"


@pytest.mark.parametrize("ends", ["abort", "close", "nonsense"])
def test_an_instance_that_a_destination_aborts_on_fails_alone(egress, audit, ends):
    """The others go on a new association, and the error says that it is about this instance, not the destination."""
    taken, associations = [], []
    reply = {"abort": raw.ABORT, "close": None, "nonsense": raw.data(1, 3, b"no command set")}[ends]

    def take(request):
        if request[dimse.AFFECTED_SOP_INSTANCE_UID] == "1.2.2":
            return reply
        taken.append(request[dimse.AFFECTED_SOP_INSTANCE_UID])
        return raw.data(1, 3, raw.store_rsp(request))

    served = raw.acceptor(raw.associate(0x02), take)

    def counted(wire) -> None:
        associations.append(wire)
        served(wire)

    with raw.scripted_scp(counted) as port:
        sender = egress(outside=port)
        for _ in range(2):
            for number in range(4):
                item = outgoing(b"x" * 10, f"1.2.{number}", instance_id=f"i{number}")
                if number != 2:
                    assert sender.send("outside", item) == 0
                    continue
                with pytest.raises(TransientError) as caught:
                    sender.send("outside", item)
                assert caught.value.about_instance
        sender.close()
    assert taken == ["1.2.0", "1.2.1", "1.2.3"] * 2
    assert len(associations) == 3
    assert [line["instance_id"] for line in audit.lines(events.DELIVERY) if line["outcome"] == "failure"] == ["i2"] * 2


def test_what_is_about_the_destination_is_not_about_the_instance(egress, scp):
    scp.start()
    scp.stop()
    with pytest.raises(TransientError) as caught:
        egress(outside=scp.port).send("outside", outgoing(b"x" * 10, "1.2.3"))
    assert not caught.value.about_instance


def test_an_odd_number_of_bytes_is_refused_before_anything_is_sent(egress, scp, audit):
    """PS3.5 7.1.1; a receiver that checks (DCMTK does) would abort over it, each time anew."""
    scp.start()
    sender = egress(outside=scp.port)
    assert sender.send("outside", outgoing(b"x" * 10, "1.2.3")) == 0
    with pytest.raises(PermanentError) as caught:
        sender.send("outside", outgoing(b"x" * 11, "1.2.4"))
    assert caught.value.code == "odd-length" and "7.1.1" in caught.value.message
    assert sender.send("outside", outgoing(b"x" * 12, "1.2.5")) == 0
    assert [len(data) for data in scp.received] == [10, 12] and scp.associations == 1
    assert [line.get("reason") for line in audit.lines(events.DELIVERY)] == [None, "odd-length", None]


def test_an_odd_original_goes_in_the_syntax_that_mends_it(egress, scp):
    """Implicit VR is written anew, and evenly; so a destination that takes it gets the instance."""
    scp.syntaxes = [IMPLICIT]
    scp.start()
    item = outgoing(b"x" * 11, "1.2.4", in_syntax=lambda syntax: io.BytesIO(b"y" * 12))
    assert egress(outside=scp.port).send("outside", item) == 0
    assert scp.received == [b"y" * 12]


@pytest.mark.parametrize("host", ["pacs..example", ".example", f"{'x' * 64}.example"])
def test_what_is_no_host_name_is_told_as_such(host):
    """Python's own encoding of names refuses it before anybody is asked, with an error that is no OSError."""
    with pytest.raises(TransientError) as caught:
        connect(Peer(host, 104, "OUTSIDE", "GATEWAY", connect_timeout_s=2))
    assert (caught.value.code, "is no host name" in caught.value.message) == ("unreachable", True)
    assert reason_not_to_listen(host, 104) == f"{host} is no address of this machine"
