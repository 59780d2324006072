"""`destinations`: listed, paused and resumed by their names."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.config import load_config
from gateway.database import open_database
from gateway.flow.destinations import paused


def test_a_destination_is_paused_and_resumed(run, sample: Path) -> None:
    config = load_config(sample)
    done = run("destinations", "pause", "research-pacs", "--config", sample)
    assert (done.code, done.err) == (0, "research-pacs is paused\n")
    assert paused(open_database(config.database_url)).keys() == {"research-pacs"}
    done = run("destinations", "pause", "research-pacs", "--config", sample)
    assert (done.code, done.err) == (3, "research-pacs was paused already\n")
    (row,) = run("destinations", "ls", "--config", sample, "--json").rows
    assert (row["name"], row["queued"], row["held"]) == ("research-pacs", 0, 0) and row["paused_at"] > 0
    assert run("destinations", "ls", "--config", sample).out.splitlines()[1].split()[-1] == "paused"
    assert "research-pacs (paused)" in run("status", "--config", sample).out
    assert run("destinations", "resume", "research-pacs", "--config", sample).code == 0
    assert run("destinations", "resume", "research-pacs", "--config", sample).code == 3
    done = run("destinations", "pause", "research-pac", "--config", sample)
    assert done.code == 2 and "no destination research-pac" in done.err
    lines = (config.site.state / "audit" / "operator.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["destination-paused", "destination-resumed"]
