"""`probe`: sent, and told what came back; where nothing is given back, the file is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest

from gateway.config import load_config
from tests.cli.test_cli_echo import with_port
from tests.support.network import peers


@pytest.mark.peers
def test_who_gives_nothing_back_is_asked_for_the_file(run, sample: Path, tmp_path: Path) -> None:
    folder, port = tmp_path / "outside", peers.free_port()
    folder.mkdir()
    with peers.running("storescp", "-aet", "RESEARCH_PACS", "-od", folder, "+B", port, port=port):
        with_port(sample, port)
        done = run("probe", "research-pacs", "--config", sample, "--patience", "0")
    assert done.code == 4 and "--returned FILE" in done.err, done.err
    (file,) = folder.iterdir()
    probe_id = done.err.split(", id ")[1].split()[0]
    uid = str(pydicom.dcmread(file).SOPInstanceUID)
    audit = load_config(sample).site.state / "audit" / "operator.jsonl"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    (told,) = [line for line in lines if line["event"] == "probe-sent"]
    assert (told["destination"], told["sop_instance_uid"]) == ("research-pacs", uid)
    back = ("probe", "research-pacs", "--config", sample, "--returned", file)
    done = run(*back, "--id", probe_id)
    assert (done.code, done.err) == (0, "all of it survives\n") and "private: 256 KiB payload" in done.out
    ds = pydicom.dcmread(file)
    ds.remove_private_tags()
    ds.save_as(file)
    done = run(*back, "--id", probe_id, "--json")
    assert done.code == 3 and [row["survives"] for row in done.rows if row["name"].startswith("private")] == [False] * 3
    assert run(*back, "--id", "f" * 32).code == 2 and run(*back).code == 2
    assert run("probe", "research-pacs", "--config", sample, "--query", "X@h").code == 2
