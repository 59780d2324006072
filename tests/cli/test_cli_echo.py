"""`echo`: a destination that answers, one that is down, one that is not there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from gateway.config import load_config


def listen(sop_class: str) -> tuple[object, int]:
    peer = AE(ae_title="RESEARCH_PACS")
    peer.add_supported_context(sop_class)
    server = peer.start_server(("127.0.0.1", 0), block=False)
    return server, server.socket.getsockname()[1]


@pytest.fixture
def port() -> Iterator[int]:
    """A peer that answers C-ECHO."""
    server, number = listen(Verification)
    yield number
    server.shutdown()


def with_port(sample: Path, number: int) -> Path:
    (destination,) = load_config(sample).destinations
    sample.write_text(sample.read_text().replace(f"port = {destination.port}", f"port = {number}"))
    return sample


def test_a_peer_that_answers_is_code_0(run, sample: Path, port: int) -> None:
    done = run("echo", "research-pacs", "--config", with_port(sample, port))
    assert done.code == 0, done.err
    assert f"RESEARCH_PACS at 127.0.0.1:{port} answered" in done.err


def test_json_says_reached_and_how_long_it_took(run, sample: Path, port: int) -> None:
    (row,) = run("echo", "research-pacs", "--config", with_port(sample, port), "--json").rows
    assert 0 < row.pop("seconds") < 10
    assert row == {"name": "research-pacs", "reached": True, "code": "", "reason": ""}


def test_a_peer_that_is_down_is_code_4(run, sample: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        number = closed.getsockname()[1]
    done = run("echo", "research-pacs", "--config", with_port(sample, number), "--json")
    assert done.code == 4
    assert (done.rows[0]["reached"], done.rows[0]["code"]) == (False, "unreachable")
    assert "Traceback" not in done.err


def test_a_peer_without_verification_is_code_4(run, sample: Path) -> None:
    server, number = listen(CTImageStorage)
    done = run("echo", "research-pacs", "--config", with_port(sample, number), "--json")
    server.shutdown()
    assert (done.code, done.rows[0]["reached"]) == (4, False)


def test_an_unknown_name_is_code_2_with_a_suggestion(run, sample: Path) -> None:
    done = run("echo", "reserch-pacs", "--config", sample)
    assert done.code == 2
    assert "hint: did you mean research-pacs?" in done.err
