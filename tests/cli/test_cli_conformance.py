"""`conformance`: the statement in deploy/docs is what the code's tables say, and repeats each row of them."""

from __future__ import annotations

from gateway.commands.conformance import statement
from gateway.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from gateway.network.incoming import STATUS_BY_CODE
from gateway.protect.policy_table import TABLE
from tests.cli.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "deploy" / "docs" / "conformance.md"


def test_the_document_is_what_the_code_says() -> None:
    """Else: miad-gateway conformance --out deploy/docs/conformance.md --overwrite."""
    assert DOCUMENT.read_text("utf-8") == statement()


def test_every_row_is_in_it() -> None:
    text = statement()
    assert all(f"`{uid}`" in text for uid in STORAGE_CLASSES | TRANSFER_SYNTAXES)
    assert all(f"| {status:04X} |" in text for status in STATUS_BY_CODE.values())
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.count("`") == 2 and line.startswith("|")}
    for uid, row in TABLE.items():
        wanted = {"block": "blocked", "remap": "references mapped"}.get(row.action, "marked")
        assert wanted in lines[uid].rpartition("|")[0].rpartition("|")[2], lines[uid]
        assert not row.hazards or "held" in lines[uid]


def test_it_is_written_and_not_over_another_file(run, tmp_path) -> None:
    assert run("conformance", "--out", "statement.md").code == 0
    assert (tmp_path / "statement.md").read_text("utf-8") == DOCUMENT.read_text("utf-8")
    again = run("conformance", "--out", "statement.md")
    assert (again.code, "output-exists" in again.err) == (2, True)
