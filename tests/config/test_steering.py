"""How a destination is sent to: schedules in local time, kinds of failures, fallbacks that are as trusted."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.config import InvalidConfigError
from gateway.config.commitment import COMMIT_STATEMENT, DELIVERED_STATEMENT
from gateway.config.commitments import commitment_findings
from gateway.config.destination import Destination
from gateway.config.load import parse_config
from gateway.config.schedule import closed_until

BERLIN = "Europe/Berlin"
NIGHTS = ("mon-fri 19:00-06:00", "sat,sun 00:00-24:00")
PACS = '[[destinations]]\nname = "pacs"\ntype = "research"\nae_title = "PACS"\nhost = "h"\nport = 104\n'
SECOND = PACS.replace("pacs", "second")
ROUTE = '[[routes]]\nname = "r"\ncalled_ae = "R"\ndestinations = ["pacs"]\n'
TLS = '[destinations.tls]\ncertificate = "c"\nprivate_key = "k"\ntrust = "t"\n'


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN)).timestamp()


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-11-26 18:59", "2026-11-26 19:00"),  # a Thursday
        ("2026-11-26 19:00", None),
        ("2026-11-27 05:59", None),  # of the night that began on Thursday
        ("2026-11-27 06:00", "2026-11-27 19:00"),
        ("2026-11-29 23:59", None),  # Sunday
        ("2026-11-30 00:00", "2026-11-30 19:00"),  # Monday: no night began on Sunday
        ("2026-03-29 12:00", None),  # the clock is put forward on this Sunday
        ("2026-10-26 07:00", "2026-10-26 19:00"),  # ... and was put back on the one before this Monday
    ],
)
def test_windows_are_of_the_wall_clock_and_reach_over_midnight(now, opens):
    assert closed_until(NIGHTS, BERLIN, at(now)) == (at(opens) if opens else None)


def test_without_a_schedule_it_is_always_open():
    assert closed_until((), "", 0.0) is None


@pytest.mark.parametrize("text", ["19-06", "mon 24:00-05:00", "mon 09:00-09:00", "foo 01:00-02:00", "10:61-11:00", ""])
def test_what_is_no_window_is_told_how_to_be_one(text):
    with pytest.raises(InvalidConfigError, match=r"mon-fri 19:00-06:00"):
        parse_config(PACS + f'schedule = ["{text}"]\n', Path("gateway.toml"))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("async_operations = 0", "greater than or equal to 1"),
        ("async_operations = 65", "less than or equal to 64"),
        ('async_operations = "all"', "async_operations"),
        ("async_operations = 33\nconnections = 4", "connections x async_operations is more than 128"),
    ],
)
def test_a_window_that_cannot_be_is_told(lines, told):
    with pytest.raises(InvalidConfigError, match=told):
        parse_config(PACS + lines + "\n", Path("gateway.toml"))
    assert (
        parse_config(PACS + "async_operations = 32\nconnections = 4\n", Path("g.toml")).destinations[0].at_a_time == 128
    )


def test_a_window_is_of_dicom_associations():
    web = '[[destinations]]\nname = "web"\ntype = "research"\nkind = "dicomweb"\nurl = "http://h/dicomweb"\n'
    with pytest.raises(InvalidConfigError, match="more connections do it here"):
        parse_config(web + "async_operations = 2\n", Path("gateway.toml"))


def test_an_unknown_time_zone_is_told():
    with pytest.raises(InvalidConfigError, match="Europe/Berlin"):
        parse_config(PACS + 'time_zone = "Mars/Olympus"\n', Path("gateway.toml"))


def test_a_kind_of_failure_is_tried_as_it_is_told_and_else_as_the_destination_is():
    text = PACS + 'retry_first_s = 1\n[[destinations.retries]]\non = "resources"\nfirst_s = 30\nlongest_s = 600\n'
    text += '[[destinations.retries]]\non = "refused"\nattempts = 7\n'
    [pacs] = parse_config(text, Path("gateway.toml")).destinations
    assert isinstance(pacs, Destination)
    assert pacs.retry("unreachable") == (500, 1, 300)
    assert pacs.retry("resources") == (500, 30, 600)
    assert pacs.retry("refused") == (7, 1, 300)
    assert pacs.retry("not-understood")[0] == 1  # held at once


def wrong(text: str) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(text, Path("gateway.toml"))
    return str(caught.value)


def test_a_fallback_is_as_trusted_as_the_first_and_leads_no_further():
    first = PACS + 'fallback = "second"\n'
    assert parse_config(first + SECOND + ROUTE, Path("gateway.toml")).destinations[0].fallback == "second"
    assert "fallback: no destination is named 'second'" in wrong(first + ROUTE)
    assert "no fallback of its own" in wrong(PACS + 'fallback = "pacs"\n')
    assert "both must be the same" in wrong(first + SECOND.replace("research", "external") + ROUTE)
    assert "less safe a place" in wrong(first + TLS + SECOND + ROUTE)
    assert "never to a third" in wrong(first + SECOND + 'fallback = "pacs"\n' + ROUTE)
    both = ROUTE.replace('["pacs"]', '["pacs", "second"]')
    assert "where this route sends already" in wrong(first + SECOND + both)
    assert "one kind" not in wrong(PACS + '[[destinations.retries]]\non = "timeot"\n')


def test_one_kind_has_one_entry():
    twice = '[[destinations.retries]]\non = "timeout"\n' * 2
    assert "'timeout' is taken by retries[0]" in wrong(PACS + twice)


REPORTS = '[ingress.peers.reports]\nhost = "127.0.0.1"\nport = 104\n'
ARCHIVE = '[[ingress.peers]]\nae_title = "ARCHIVE"\naddresses = ["10.0.0.1"]\n'
COMMITMENT = "[destinations.commitment]\n"


def said(text: str, tmp_path: Path) -> str:
    config = parse_config(text, tmp_path / "gateway.toml")
    return "\n".join(f"{one.where}: {one.message}" for one in commitment_findings(config, "all"))


def test_what_is_bold_or_useless_about_commitments_is_told(tmp_path):
    asked = PACS + COMMITMENT
    assert "nothing listens for reports" in said(asked, tmp_path)
    assert "from which address its reports come" in said(asked, tmp_path)
    named = asked + 'addresses = ["10.0.0.2"]\n' + "[commitment]\n"
    assert said(named, tmp_path) == ""
    assert "may report that copies are committed" in said(named + 'host = "0.0.0.0"\n', tmp_path)
    assert "nobody may report there" in said(PACS + "[commitment]\n", tmp_path)
    given = said(PACS + ROUTE + ARCHIVE + REPORTS, tmp_path)
    assert "may delete what is committed" in given and "may ask for commitments" in given
    assert "nothing will be committed" in given  # there is no restore role
    ending = said(PACS + ROUTE + ARCHIVE + REPORTS + "[retention]\nvault_days = 30\n", tmp_path)
    assert "nothing of route r will be committed to" in ending
    statement = f'commit_statement = "{COMMIT_STATEMENT}"\n'
    assert "that will be gone one day" in said(PACS + ROUTE + statement + ARCHIVE + REPORTS, tmp_path)
    assert "must read" in wrong(PACS + ROUTE + 'commit_statement = "yes"\n')
    assert "pacs commits to keep no copy" in given
    assert "commits to keep no copy" not in said(named + ROUTE + ARCHIVE + REPORTS, tmp_path)
    spare = PACS + 'fallback = "second"\n' + COMMITMENT + 'addresses = ["10.0.0.2"]\n' + SECOND
    told = said(spare + "[commitment]\n" + ROUTE + ARCHIVE + REPORTS, tmp_path)
    assert "that falls back on second will be committed to" in told
    kept = spare + COMMITMENT + 'addresses = ["10.0.0.3"]\n[commitment]\n'
    assert "second commits to keep no copy" not in said(kept + ROUTE + ARCHIVE + REPORTS, tmp_path)
    received = f'delivered_statement = "{DELIVERED_STATEMENT}"\n'
    assert "nobody has committed to keep" in said(PACS + ROUTE + received + ARCHIVE + REPORTS, tmp_path)
    stated = said(spare + "[commitment]\n" + ROUTE + received + ARCHIVE + REPORTS, tmp_path)
    assert "nobody has committed to keep" in stated and "falls back on second" not in stated
    assert "must read" in wrong(PACS + ROUTE + 'delivered_statement = "yes"\n')
    assert "no [commitment.tls] table" in wrong(PACS + ARCHIVE + REPORTS + "tls = true\n")


def test_an_association_that_would_end_first_is_told():
    text = ROUTE + 'ack = "downstream"\nack_within_s = 90\n' + PACS
    assert "ack_within_s: associations end after 60 s of silence" in wrong(text)
