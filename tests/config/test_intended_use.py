"""The page on intended use says what the configuration demands, and promises no more than the README."""

from __future__ import annotations

from pathlib import Path

from gateway.audit import events
from gateway.config.models import CLINICAL_STATEMENT

REPOSITORY = Path(__file__).parent.parent.parent
PAGE = (REPOSITORY / "deploy" / "intended-use.md").read_text("utf-8")


def paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n")]


def test_the_override_is_quoted_as_the_configuration_wants_it() -> None:
    assert f"> {CLINICAL_STATEMENT}" in PAGE.splitlines()
    code = events.EVENTS[events.CLINICAL_DESTINATION]
    assert f"`{events.CLINICAL_DESTINATION}`, event {code.event_id}, type {code.event_type}" in PAGE


def test_the_limits_are_those_of_the_readme() -> None:
    limits = next(
        part for part in paragraphs((REPOSITORY / "README.md").read_text("utf-8")) if "The mark lowers" in part
    )
    assert limits.replace("the table", "the README's table") in paragraphs(PAGE)
