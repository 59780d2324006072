"""Marked copies in the syntaxes of the configuration, to real peers, and the original back from what each received."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from pynetdicom import AE, evt

from gateway.audit import AuditLog, events
from gateway.config.models import Destination
from gateway.config.syntaxes import UNCOMPRESSED, SyntaxName
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, LOSSLESS_NAMES
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import PermanentError
from gateway.flow.ports import Outgoing
from gateway.keys.keyring import OpeningKeys
from gateway.network.egress import Egress
from gateway.restore import CopyRestorer
from tests.flow.test_references import OTHERS, bare
from tests.support.dicom.samples import CT, encode
from tests.support.flow import ROUTE, Flow, configuration, ct
from tests.support.network import peers

CARRIED = ROUTE.model_copy(update={"restoration": "carried"})
PREFER = {"jpeg-ls": ("+xt",), "jpeg-2000": ("+xv",), "rle": ("+xr",), "explicit": ("+xe",), "implicit": ("+xi",)}


@pytest.fixture(scope="module")
def marked(tmp_path_factory, site_keys) -> Iterator[tuple[Flow, Outgoing, bytes]]:
    """One slice that a site has marked, as its flow hands it to the egress, and the bytes fixed for it."""
    flow = Flow(configuration(tmp_path_factory.mktemp("state"), site_keys, CARRIED))
    flow.receive(ct())
    flow.run()
    [(_, item, data)] = flow.sender.received
    yield flow, item, data
    flow.engine.dispose()


@contextmanager
def egress(port: int, *names: SyntaxName, audit: AuditLog) -> Iterator[Egress]:
    wanted = {"transfer_syntaxes": names} if names else {}
    outside = Destination(name="outside", type="research", ae_title="OUTSIDE", host="127.0.0.1", port=port, **wanted)
    sender = Egress([outside], audit)
    try:
        yield sender
    finally:
        sender.close()


@contextmanager
def peer(*names: SyntaxName, sop_class: str = CT) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """A pynetdicom SCP that accepts these syntaxes only; its port, and (syntax, data set) of what it received."""
    received: list[tuple[str, bytes]] = []

    def store(event) -> int:
        received.append((str(event.context.transfer_syntax), event.request.DataSet.getvalue()))
        return 0x0000

    ae = AE("OUTSIDE")
    ae.add_supported_context(sop_class, [LOSSLESS_NAMES[name] for name in names])
    port = peers.free_port()
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield port, received
    finally:
        server.shutdown()


def restored(flow: Flow, data: bytes, syntax: str) -> bytes:
    with CopyRestorer(OpeningKeys.load(flow.config.keys)).by_copy(io.BytesIO(data), syntax) as original:
        original.verify()
        return b"".join(original.stream())


def test_the_names_of_the_configuration_are_those_that_are_encoded():
    assert set(SyntaxName.__args__) == set(LOSSLESS_NAMES)
    assert Destination.model_fields["transfer_syntaxes"].default == UNCOMPRESSED == ("explicit", "implicit")


@pytest.mark.parametrize("name", LOSSLESS_NAMES)
def test_a_peer_that_takes_one_syntax_only_gets_it_and_the_original_comes_back(marked, tmp_path, name):
    flow, item, data = marked
    audit = AuditLog(tmp_path / "audit.jsonl")
    with peer(name) as (port, received), egress(port, *LOSSLESS_NAMES, audit=audit) as sender:
        assert sender.send("outside", item) == 0x0000
        assert sender.send("outside", item) == 0x0000
    syntax = LOSSLESS_NAMES[name]
    assert received[0] == received[1] and received[0][0] == syntax  # sent again: the same bytes
    pixels = decode_pixels(received[0][1], syntax)
    assert np.array_equal(pixels.frames, decode_pixels(data, EXPLICIT_LITTLE).frames)
    assert restored(flow, received[0][1], syntax) == encode(ct())
    assert f'"transfer_syntax_uid":"{syntax}"' in (tmp_path / "audit.jsonl").read_text().replace(" ", "")


@pytest.mark.peers
@pytest.mark.parametrize("name", PREFER)
def test_dcmtk_takes_it_in_every_syntax_that_it_knows(marked, tmp_path, name):
    flow, item, _ = marked
    audit = AuditLog(tmp_path / "audit.jsonl")
    with peers.storescp(tmp_path / "out", *PREFER[name]) as port, egress(port, name, audit=audit) as sender:
        assert sender.send("outside", item) == 0x0000
    [path] = (tmp_path / "out").iterdir()
    with path.open("rb") as file:
        meta, _ = split_part10(file)
        assert meta.transfer_syntax_uid == LOSSLESS_NAMES[name]
        assert restored(flow, file.read(), meta.transfer_syntax_uid) == encode(ct())


@pytest.mark.peers
def test_orthanc_stores_it_compressed(marked, tmp_path):
    flow, item, _ = marked
    with peers.orthanc() as outside, egress(outside.port, "jpeg-ls", audit=AuditLog(tmp_path / "a")) as sender:
        assert sender.send("outside", item) == 0x0000
        [file] = [io.BytesIO(outside.file(instance)) for instance in outside.instances()]
    meta, _ = split_part10(file)
    assert meta.transfer_syntax_uid == LOSSLESS_NAMES["jpeg-ls"]
    assert restored(flow, file.read(), meta.transfer_syntax_uid) == encode(ct())


@pytest.mark.parametrize(
    ("wanted", "accepted", "sent"),
    [
        (("htj2k", "jpeg-ls", "explicit"), ("explicit", "jpeg-ls"), "jpeg-ls"),
        (("explicit", "jpeg-ls"), ("jpeg-ls", "explicit"), "explicit"),
        ((), ("htj2k", "jpeg-ls", "explicit", "implicit"), "explicit"),
        ((), ("htj2k", "implicit"), "implicit"),
    ],
)
def test_the_first_of_the_list_that_the_peer_accepts_is_used(marked, tmp_path, wanted, accepted, sent):
    _, item, _ = marked
    with peer(*accepted) as (port, received), egress(port, *wanted, audit=AuditLog(tmp_path / "a")) as sender:
        sender.send("outside", item)
    assert [syntax for syntax, _ in received] == [LOSSLESS_NAMES[sent]]


def test_a_syntax_that_was_not_configured_is_not_used(marked, tmp_path):
    _, item, _ = marked
    with (
        peer("explicit", "implicit") as (port, received),
        egress(port, "htj2k", audit=AuditLog(tmp_path / "a")) as sender,
        pytest.raises(PermanentError) as caught,
    ):
        sender.send("outside", item)
    assert caught.value.code == "context-refused" and received == []


OLD_OVERLAY = (  # PS3.3 C.9.2, retired: its plane lies in bit 12 of the pixels
    (0x60000010, "US", 64),
    (0x60000011, "US", 64),
    (0x60000040, "CS", "G"),
    (0x60000050, "SS", [1, 1]),
    (0x60000100, "US", 16),
    (0x60000102, "US", 12),
)


def test_pixels_that_a_syntax_does_not_hold_go_in_the_next_one(make_flow, tmp_path, caplog):
    """An old overlay in a bit above Bits Stored: JPEG-LS would lose it, so the copy goes out uncompressed or not."""
    noise = np.random.default_rng(5).integers(0, 65536, (64, 64)).astype("<u2")
    overlay = ct(PixelRepresentation=0, BitsStored=12, PixelData=noise.tobytes())
    for tag, vr, value in OLD_OVERLAY:
        overlay.add_new(tag, vr, value)
    flow = make_flow(CARRIED)
    flow.receive(overlay)
    flow.run()
    [(_, item, data)] = flow.sender.received
    audit = AuditLog(tmp_path / "audit.jsonl")
    with peer("jpeg-ls", "htj2k", "explicit") as (port, received), caplog.at_level(logging.WARNING):
        with egress(port, "htj2k", "jpeg-ls", "explicit", audit=audit) as sender:
            sender.send("outside", item)
        with egress(port, "htj2k", "jpeg-ls", audit=audit) as sender, pytest.raises(PermanentError) as caught:
            sender.send("outside", item)
    assert received == [(EXPLICIT_LITTLE, data)]
    assert caught.value.code == "no-exact-syntax" and "transfer_syntaxes" in caught.value.hint
    lines = [line for line in caplog.messages if "does not go out in" in line]
    assert len(lines) == 4 and item.instance_id in lines[0] and "outside Bits Stored" in lines[0]
    assert events.DELIVERY in (tmp_path / "audit.jsonl").read_text()


def test_what_only_refers_to_images_is_not_compressed(make_flow, tmp_path):
    flow = make_flow()
    flow.receive(bare(OTHERS["KO"]))
    flow.run()
    [(_, item, _)] = flow.sender.received
    with (
        peer("jpeg-ls", "implicit", sop_class=item.sop_class_uid) as (port, received),
        egress(port, "jpeg-ls", audit=AuditLog(tmp_path / "a")) as sender,
    ):
        sender.send("outside", item)
    assert [syntax for syntax, _ in received] == [IMPLICIT_LITTLE]


def test_a_peer_that_leaves_while_an_image_is_encoded_is_called_again(marked, tmp_path):
    _, item, _ = marked
    with peer("jpeg-ls") as (port, received), egress(port, "jpeg-ls", audit=AuditLog(tmp_path / "a")) as sender:
        (link,) = sender._pools["outside"]._links

        def slow(syntax: str) -> io.BytesIO:
            link._association.abort()
            return item.in_syntax(syntax)

        assert sender.send("outside", replace(item, in_syntax=slow)) == 0x0000
    assert len(received) == 1
