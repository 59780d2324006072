"""`doctor`: its exit codes, its words and its JSON."""

from __future__ import annotations

from pathlib import Path

from gateway.config import load_config


def test_a_destination_that_is_down_is_code_4_and_says_what_to_do(run, sample: Path) -> None:
    done = run("doctor", "--config", sample)
    assert done.code == 4, done.err
    assert "research-pacs: cannot connect" in done.out and "what to do: is it running?" in done.out
    assert done.err.startswith(f"{sample}: 1 errors")


def test_anything_else_that_is_wrong_is_code_2_and_json_has_it(run, sample: Path) -> None:
    (load_config(sample).site.state.parent / "keys" / "uid.key").chmod(0o644)
    done = run("doctor", "--config", sample, "--json")
    assert done.code == 2, done.err
    (row,) = [row for row in done.rows if (row["area"], row["level"]) == ("keys", "error")]
    assert row["where"] == "keys.uid_key" and "chmod 600" in row["hint"]
    assert {row["area"] for row in done.rows} >= {"disk", "ports", "codecs", "database", "destinations", "certificates"}


def test_a_configuration_that_cannot_be_read_is_code_2(run, tmp_path: Path) -> None:
    assert run("doctor", "--config", tmp_path / "none.toml").code == 2
