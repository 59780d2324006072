"""The configuration for Patroni that operators get, and what `cluster` needs of it. It runs in tests/database."""

from __future__ import annotations

import yaml

from tests.conftest import REPOSITORY


def test_nothing_is_confirmed_by_one_machine_alone() -> None:
    node = yaml.safe_load((REPOSITORY / "deploy" / "patroni" / "patroni.yml").read_text())
    shared = node["bootstrap"]["dcs"]
    assert shared["synchronous_mode"] is True and shared["synchronous_mode_strict"] is True
    assert shared["ttl"] >= shared["loop_wait"] + 2 * shared["retry_timeout"]
    parameters = shared["postgresql"]["parameters"]
    assert [parameters[name] for name in ("synchronous_commit", "fsync", "full_page_writes")] == ["on"] * 3
    assert "no-slot" in node["postgresql"]["basebackup"]  # else a copy in the making answers as a standby does
    rules = [rule.split() for rule in node["postgresql"]["pg_hba"]]
    assert all(rule[0] == "local" or (rule[0], rule[-1]) == ("hostssl", "scram-sha-256") for rule in rules)
