"""Parts in conf.d: what is joined, what is refused, and where each mistake is said to stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import InvalidConfigError, Source, load_config
from gateway.keys.generate import make_keys
from gateway.service import database
from gateway.vault import backup
from gateway.vault.recovery import recover

MAIN = """version = 1
[ingress]
port = 11112
[[ingress.peers]]
ae_title = "ARCHIVE"
addresses = ["127.0.0.1"]
[[destinations]]
name = "pacs"
type = "research"
ae_title = "PACS"
host = "h"
port = 104
[[routes]]
name = "first"
called_ae = "FIRST"
destinations = ["pacs"]
"""
ROUTE = '[[routes]]\nname = "second"\ncalled_ae = "SECOND"\ndestinations = ["pacs"]\n[routes.mark]\nsteps = 3\n'
PEER = '[ingress]\nmax_pdu = 65536\n[[ingress.peers]]\nae_title = "MODALITY"\naddresses = ["127.0.0.2"]\n'


@pytest.fixture
def write(tmp_path: Path):
    def write_parts(**parts: str) -> Path:
        file = tmp_path / "gateway.toml"
        file.write_text(MAIN)
        (tmp_path / "conf.d").mkdir()
        for name, text in parts.items():
            (tmp_path / "conf.d" / f"{name}.toml").write_text(text)
        return file

    return write_parts


def problems(file: Path) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_config(file)
    return [str(problem) for problem in caught.value.problems]


def test_tables_join_and_lists_of_tables_append_in_the_order_of_names(write, tmp_path: Path) -> None:
    file = write(b=ROUTE, a=PEER)
    (tmp_path / "conf.d" / "notes.txt").write_text("not read")
    (tmp_path / "conf.d" / ".#b.toml").write_text("not [ read either")
    config = load_config(file)
    assert [route.name for route in config.routes] == ["first", "second"]
    assert config.routes[1].mark.steps == 3
    assert [peer.ae_title for peer in config.ingress.peers] == ["ARCHIVE", "MODALITY"]
    assert (config.ingress.port, config.ingress.max_pdu) == (11112, 65536)


def test_paths_in_a_part_are_meant_against_the_configuration_file(write, tmp_path: Path) -> None:
    config = load_config(write(a='[keys]\nuid_key = "file:keys/other.key"\n[site]\nstate = "there"\n'))
    assert config.keys.uid_key == f"file:{tmp_path}/keys/other.key"
    assert config.site.state == tmp_path / "there"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("[ingress]\n\nport = 11112\n", "conf.d/a.toml, line 3, ingress.port: is set already in gateway.toml, line 3"),
        ("\nversion = 1\n", "conf.d/a.toml, line 2, version: is set already in gateway.toml, line 1"),
        ("ingress.peers = 5\n", "conf.d/a.toml, line 1, ingress.peers: is set already in gateway.toml, line 4"),
    ],
)
def test_a_key_in_two_files_is_an_error_that_names_both_places(write, part: str, told: str) -> None:
    (problem,) = problems(write(a=part))
    assert problem.startswith(told)


def test_two_parts_that_set_the_same_key_are_told_of_too(write) -> None:
    (problem,) = problems(write(a="[log]\nlevel = 'info'\n", b="[log]\nlevel = 'info'\n"))
    assert problem.startswith("conf.d/b.toml, line 2, log.level: is set already in a.toml, line 2")


def test_a_mistake_in_a_part_is_told_with_its_file_line_and_place_in_the_whole(write) -> None:
    told = problems(write(a=ROUTE.replace("steps", "stpes"), b=ROUTE.replace("second", "third") + "[site]\nname=5\n"))
    assert told == [
        "conf.d/a.toml, line 6, routes[1].mark.stpes: unknown key (did you mean steps?)",
        'conf.d/b.toml, line 8, site.name: must be text (written as "text", in quotes)',
    ]


def test_what_is_wrong_only_together_is_told_in_the_part_that_came_later(write) -> None:
    told = problems(write(c=ROUTE.replace("SECOND", "FIRST")))
    assert told == ["conf.d/c.toml, line 3, routes[1].called_ae: 'FIRST' is taken by routes[0]"]


def test_a_part_that_is_no_toml_is_named(write) -> None:
    file = write(a="[ingress\n")
    with pytest.raises(InvalidConfigError) as caught:
        load_config(file)
    assert (caught.value.code, caught.value.file.name, caught.value.problems[0].line) == ("config-syntax", "a.toml", 1)


def test_the_digest_is_of_all_of_it(write, tmp_path: Path) -> None:
    file = write(a=PEER)
    first = Source.read(file)
    assert Source.read(file) == first == Source.of_texts(first.as_texts())
    (tmp_path / "conf.d" / "a.toml").rename(tmp_path / "conf.d" / "b.toml")
    assert Source.read(file).digest != first.digest


def test_a_backup_holds_the_parts(write, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(backup, "_LOG_N", 12)
    file = write(a=ROUTE)
    make_keys(tmp_path / "keys")
    database(load_config(file))
    backup.backup(load_config(file), tmp_path / "site.backup", "correct horse", source=file)
    recovered = recover(tmp_path / "site.backup", tmp_path / "new", "correct horse")
    assert [route.name for route in load_config(recovered.config).routes] == ["first", "second"]
