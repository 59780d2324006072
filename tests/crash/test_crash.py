"""A few kills between real peers, as the full campaign does fifty: `python -m tests.benchmarks.kill`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.archive import NO_RESOURCES, SUCCESS, answered_files
from tests.crash.campaign import campaign
from tests.crash.checks import Delivered, problems_of_sink
from tests.crash.objects import Instance
from tests.support.examples import is_default_run


def test_storescu_is_believed_only_when_it_was_answered_with_success():
    output = """I: Sending file: /a
I: Received Store Response (Success)
I: Sending file: /b
I: Received Store Response (Refused: OutOfResources)
I: Sending file: /c
E: Store SCU Failed: 0006:020e DUL Peer aborted Association
"""
    assert answered_files(output) == {"/a": SUCCESS, "/b": NO_RESOURCES}


ORIGINAL = Instance(Path("a"), "1.2.3.4.5.6", "-xe", "original pixels")
COPY = Delivered(Path("b"), "2.25.1", "bytes", "marked pixels", True, frozenset({"2.25.1"}))


@pytest.mark.parametrize(
    ("culprit", "problem"),
    [
        (replace(COPY, marked=False), "unmarked"),
        (replace(COPY, pixels_sha256="original pixels"), "unmarked"),
        (replace(COPY, uids=frozenset({"1.2.3.4.5.6"})), "unmarked"),
        (replace(COPY, sha256="other bytes"), "two byte strings"),
    ],
)
def test_the_campaign_would_see_it(culprit, problem):
    assert problems_of_sink([COPY, COPY], [ORIGINAL]) == []
    [found] = problems_of_sink([COPY, culprit], [ORIGINAL])
    assert found.startswith(problem)


@pytest.mark.peers
@pytest.mark.timeout(280)
def test_nothing_is_lost_unmarked_or_double_after_kills(tmp_path):
    kills, instances = (2, 12) if is_default_run() else (5, 24)
    outcome = campaign(tmp_path, kills=kills, sends=1, instances=instances, seed=5)
    assert outcome.problems == []
    assert outcome.acknowledged == instances
    assert (outcome.kills, outcome.missed) == (kills, [])
