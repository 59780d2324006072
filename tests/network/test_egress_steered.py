"""Several associations with a destination, a limit of bytes a second, and the priority in the request."""

from __future__ import annotations

import io
import threading

import pytest

from gateway.config.models import Destination
from gateway.network import command as dimse
from gateway.network.bandwidth import Bucket, Throttled
from gateway.network.egress import Egress
from tests.support.network import peers, raw
from tests.support.network.samples import ct, data_set_bytes, outgoing


def egress_to(port: int, audit, **more) -> Egress:
    settings = {"type": "research", "ae_title": "OUTSIDE", "host": "127.0.0.1", "response_timeout_s": 10, **more}
    return Egress([Destination(name="outside", port=port, **settings)], audit)


@pytest.mark.peers
def test_two_associations_send_to_dcmtk_at_the_same_time(audit, tmp_path):
    """Neither ends before both are under way: with one association this would wait for ever."""
    both = threading.Barrier(2, timeout=20)

    class Meeting(io.BytesIO):
        met = False

        def read(self, size: int | None = -1) -> bytes:
            if not self.met:
                self.met = True
                both.wait()
            return super().read(size)

    sent = dict(ct(64 + number) for number in range(2))
    with peers.storescp(tmp_path / "out", "--fork") as port:
        sender = egress_to(port, audit, connections=2)
        items = [outgoing(data, uid) for uid, data in sent.items()]
        items = [type(one)(**{**vars(one), "open": lambda one=one: Meeting(one.open().read())}) for one in items]
        threads = [threading.Thread(target=sender.send, args=("outside", one)) for one in items]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        sender.close()
    assert {data_set_bytes(path) for path in (tmp_path / "out").iterdir()} == set(sent.values())


@pytest.mark.parametrize(("priority", "word"), [("low", 2), ("medium", 0), ("high", 1)])
def test_the_priority_stands_in_the_request(audit, priority, word):
    seen: list[dimse.Command] = []

    def take(command: dimse.Command) -> bytes:
        seen.append(command)
        return raw.data(1, 3, raw.store_rsp(command))

    with raw.scripted_scp(raw.acceptor(raw.associate(0x02), take)) as port:
        sender = egress_to(port, audit, priority=priority)
        assert sender.send("outside", outgoing(b"x" * 10, "1.2.3")) == 0
        sender.close()
    assert seen[0][dimse.PRIORITY] == word


def test_a_bucket_lets_a_second_go_at_once_and_then_its_rate():
    now, waited = [0.0], []
    bucket = Bucket(1000, clock=lambda: now[0], wait=waited.append)
    bucket.take(1000)
    assert waited == []
    bucket.take(500)  # half a second's worth more than there is
    assert waited == [0.5]
    bucket.take(100)  # of another thread at the same moment: it stands behind the first
    assert waited == [0.5, 0.6]
    now[0] += 100.0
    bucket.take(1000)  # it holds no more than one second's
    bucket.take(10)
    assert waited == [0.5, 0.6, pytest.approx(0.01)]


def test_a_limited_stream_gives_the_same_bytes_in_pieces():
    waited: list[float] = []
    bucket = Bucket(100_000, clock=lambda: 0.0, wait=waited.append)
    stream = Throttled(io.BytesIO(bytes(range(256)) * 1000), bucket)
    pieces = []
    while piece := stream.read(1 << 20):
        pieces.append(piece)
    assert b"".join(pieces) == bytes(range(256)) * 1000 and max(map(len, pieces)) == 10_000
    assert waited[-1] == pytest.approx(1.56)  # 256,000 bytes, 100,000 of them at once


@pytest.mark.peers
def test_a_limited_destination_gets_its_instances_whole(audit, tmp_path):
    uid, data = ct(64)
    with peers.storescp(tmp_path / "out") as port:
        sender = egress_to(port, audit, limit_kib_s=1024)
        assert sender.send("outside", outgoing(data, uid)) == 0
        sender.close()
    [stored] = (tmp_path / "out").iterdir()
    assert data_set_bytes(stored) == data
