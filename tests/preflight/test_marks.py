"""What a route may say of its mark is what the mark takes: one definition, checked before a worker starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from gateway.config.load import parse_config
from gateway.config.models import Mark
from gateway.config.problems import InvalidConfigError
from gateway.keys.generate import make_keys
from gateway.mark.placement.letters import check_words
from gateway.mark.settings import MarkSettings
from gateway.preflight import preflight
from tests.conftest import REPOSITORY

ROUTE = "[[routes]]\nname='r'\ncalled_ae='R'\ndestinations=['d']\nmark = {{ {} }}\n[[destinations]]\nname='d'\n"
ROUTE += "type='research'\nae_title='D'\nhost='localhost'\nport=1\n"

VALUES = {
    "text": ["COPY", "a b", "~", "x" * 32, "x" * 33, "", " ", "   ", "café", "COPY\n", "\tX", "日本", "x\u200b", "!"],
    "word": ["COPY", "x" * 12, "x" * 13, "", " ", "a b", " a", "-", "é", "日本", "\n"],
    "steps": [0, 1, 1000, 1001, -1],
    "refine": [0, 5, 6, -1],
    "key_slices": [True, False, "perhaps"],
    "tier": ["notice", "lettered", "air", "discreet", "loud"],
    "without_air": ["lettered", "discreet", "hold", "notice"],
    "mode": ["strong", "paper", "generator", "weak"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_the_configuration_takes_what_the_mark_takes(name: str, value: object) -> None:
    given = {name: value} if name != "refine" else {name: value, "mode": "generator"}
    assert accepted(Mark, given) == accepted(MarkSettings, given), given


def accepted(model: type, given: dict[str, object]) -> bool:
    try:
        model(**given)
    except ValidationError:
        return False
    return True


def test_every_setting_of_a_route_is_compared_above() -> None:
    elsewhere = {"generator", "logo", "surrogates"}  # files and packs: below, and in tests/cli
    assert set(Mark.model_fields) & set(MarkSettings.model_fields) <= set(VALUES) | elsewhere


def test_what_a_route_says_is_defined_once() -> None:
    """All keys of a route's mark are the mark's own; only `steps` has another default (None: the mark's)."""
    assert issubclass(MarkSettings, Mark) and set(MarkSettings.__annotations__) & set(Mark.model_fields) == {"steps"}
    route = Mark().model_dump(exclude_none=True)
    assert MarkSettings(**route) == MarkSettings()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tier": "discreet", "mode": "paper"}, "visible mark"),
        ({"refine": 1}, "refine goes with mode 'generator' only"),
        ({"mode": "paper", "generator": Path("g")}, "generator goes with mode 'generator' only"),
        ({"surrogates": ("No Name",)}, "a name has 1 to 32"),
    ],
)
def test_what_does_not_go_together_is_told_alike(given: dict[str, object], words: str) -> None:
    for model in (Mark, MarkSettings):
        with pytest.raises(ValidationError, match=words):
            model(**given)


@pytest.mark.parametrize("text", ["café", " ", "x" * 33])
def test_letters_that_cannot_be_drawn_are_told_with_their_line(text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(ROUTE.format(f"text = '{text}'"), Path("gateway.toml"))
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("routes[0].mark.text", 5)
    assert "printable ASCII" in problem.message or "at most 32 characters" in problem.message


def test_a_text_that_no_image_can_hold_is_told_before_the_worker_starts(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    for text, errors in (("W" * 32, 1), ("x" * 32, 0), ("W" * 16 + " " + "W" * 15, 0)):
        config = parse_config(ROUTE.format(f"text = '{text}'"), tmp_path / "gateway.toml")
        found = [one for one in preflight(config, "worker") if one.level == "error"]
        assert len(found) == errors, (text, found)
        assert all(one.where == "routes[0].mark.text" and "no image holds the word" in one.message for one in found)


def test_the_texts_that_a_route_has_by_itself_fit_and_are_not_set_anew_at_each_start(tmp_path: Path) -> None:
    """Else each supervisor and each `config check` would load torch, for words that never change."""
    check_words(Mark().text, Mark().word)
    make_keys(tmp_path / "keys")
    (tmp_path / "gateway.toml").write_text(ROUTE.format(""))
    code = "import sys; from gateway.config import load_config; from gateway.preflight import preflight\n"
    code += f"preflight(load_config({str(tmp_path / 'gateway.toml')!r})); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_a_logo_that_cannot_be_drawn_is_found_before_the_worker_starts(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    logo = tmp_path / "logo.png"
    config = parse_config(ROUTE.format("logo = 'logo.png'"), tmp_path / "gateway.toml")
    logo.write_bytes(b"no image")
    found = [one for one in preflight(config, "worker") if one.level == "error"]
    assert [one.where for one in found] == ["routes[0].mark.logo"]
    assert "no image that can be read" in found[0].message
    Image.new("L", (64, 64), 255).save(logo)  # nothing in it
    assert [one.where for one in preflight(config, "worker") if one.level == "error"] == ["routes[0].mark.logo"]
    picture = Image.new("L", (64, 64), 255)
    picture.paste(0, (16, 16, 48, 48))
    picture.save(logo)
    assert [one for one in preflight(config, "worker") if one.level == "error"] == []
