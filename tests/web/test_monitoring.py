"""deploy/monitoring: rules and dashboard ask for metrics that are there, fire when they should, and are explained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.commands.page import app
from gateway.web.dashboard import dashboard
from gateway.web.metrics import render
from gateway.web.sources import Certificate, Sources
from tests.conftest import missing
from tests.web.conftest import Shown, make

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
NAME = re.compile(r"miad_gateway_\w+")


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory, page_keys: Path) -> dict[str, set[str]]:
    """Every metric with its labels, of a site that has one of each and sent something a moment ago (rates ask)."""
    old = make(tmp_path_factory.mktemp("emitted"), page_keys).client.app.state.sources
    sources = Sources(
        old.config, old.engine, {}, lambda: [Certificate("ingress.tls.certificate", 0.0)], old.listeners, old.audit
    )
    sources.looks.overview()
    object.__setattr__(sources.looks._last, "worker_seen_at", 1.0)
    families = text_string_to_metric_families(render(sources).decode())
    return {one.name: {label for sample in one.samples for label in sample.labels} for one in families}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_there_is_and_says_what_to_do(rule: dict, emitted: dict[str, set[str]]) -> None:
    names = set(NAME.findall(rule["expr"]))
    assert names <= emitted.keys() and (names or "up{" in rule["expr"])
    labels = set().union(*(emitted[name] for name in names)) | {"instance"}
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels
    assert set(rule["annotations"]) == {"summary", "description"} and rule["labels"]["severity"] in (
        "warning",
        "critical",
    )
    manual = (MONITORING.parent / "docs" / "operations.md").read_text()
    assert f"| `{rule['alert']}` |" in manual


def test_every_metric_is_used_and_explained(emitted: dict[str, set[str]]) -> None:
    boards = json.dumps(dashboard()) + (MONITORING / "alerts.yml").read_text()
    assert {name for name in emitted if name not in boards} == set()
    manual = (MONITORING.parent / "docs" / "operations.md").read_text()
    assert [name for name in emitted if f"`{name.removeprefix('miad_gateway_')}`" not in manual] == []


def test_the_dashboard_is_what_the_code_makes(capsys: pytest.CaptureFixture) -> None:
    """After a change: miad-gateway page dashboard > deploy/monitoring/grafana.json"""
    app(["dashboard"], standalone_mode=False)
    assert capsys.readouterr().out == (MONITORING / "grafana.json").read_text()


def test_the_dashboard_asks_for_what_there_is(emitted: dict[str, set[str]]) -> None:
    board = dashboard()
    places = []
    for panel in board["panels"]:
        for query in panel["targets"]:
            (name,) = set(NAME.findall(query["expr"]))
            assert name in emitted, panel["title"]
            assert set(re.findall(r"\{\{(\w+)\}\}", query["legendFormat"])) <= emitted[name]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        places += [
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
    assert len(places) == len(set(places)), "panels lie over one another"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        missing("promtool (Debian: prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.peers
def test_promtool_takes_rules_configuration_and_metrics(shown: Shown) -> None:
    promtool("check", "rules", MONITORING / "alerts.yml")
    promtool("check", "config", MONITORING / "prometheus.yml")
    program = shutil.which("promtool") or ""
    done = subprocess.run(
        [program, "check", "metrics"], input=shown.client.get("/metrics").text, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.peers
def test_each_rule_fires_when_it_should(tmp_path: Path) -> None:
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    tests = shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
    promtool("test", "rules", tests)
    asked = {
        one["alertname"]
        for case in yaml.safe_load(Path(tests).read_text())["tests"]
        for one in case["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert asked == {rule["alert"] for rule in RULES}
