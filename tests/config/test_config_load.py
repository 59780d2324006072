"""Loading: what a person gets to read for each kind of mistake, and what a right file becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigProblem, InvalidConfigError, check_config, load_config
from gateway.config.load import parse_config
from gateway.config.passing import PASS_STATEMENT, TRUST_STATEMENT
from gateway.errors import ConfigError

DESTINATION = '[[destinations]]\nname = "pacs"\ntype = "research"\nae_title = "PACS"\nhost = "h"\nport = 104\n'
ROUTE = '[[routes]]\nname = "r"\ncalled_ae = "R"\ndestinations = ["pacs"]\n'
TRUSTED = DESTINATION + f'trust_statement = "{TRUST_STATEMENT}"\n'
PASS = f'action = "pass"\npass_statement = "{PASS_STATEMENT}"\n'
GLASS = "[routes.break_glass]\nuntil = {}\nreason = 'ward server down      '\n"
UNTIL = "routes[0].break_glass.until"
WORKSTATION = '[restore]\nplain_port = 1\n[restore.tls]\ncertificate = "c"\nprivate_key = "k"\ntrust = "t"\n'
WORKSTATION += '[[restore.workstations]]\nae_title = "W"\naddresses = ["10.0.0.1"]\n'


def problems(text: str) -> list[ConfigProblem]:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(text, Path("gateway.toml"))
    return list(caught.value.problems)


# text, path, line, a part of the message, a part of the suggestion
MISTAKES = {
    "unknown key": ("[site]\nnaem = 'x'\n", "site.naem", 2, "unknown key", "did you mean name?"),
    "unknown key in an array of tables": (
        ROUTE + "destnation = 1\n" + DESTINATION, "routes[0].destnation", 5, "unknown key", "mean destinations?",
    ),
    "unknown key in a sub-table": (
        DESTINATION + ROUTE + "[routes.mark]\nteir = 'discreet'\n", "routes[0].mark.teir", 12, "unknown", "tier?",
    ),
    "unknown key, dotted": ("\nsite.nme = 'x'\n", "site.nme", 2, "unknown key", "did you mean name?"),
    "unknown key in an inline table": ("[ingress]\npeers = [\n{ae_title = 'A', addresses = ['1.2.3.4'],\nadress = 1}]"
        .replace(",\nadress", ", adress"), "ingress.peers[0].adress", 3, "unknown key", "did you mean addresses?"),
    "unknown table": ("\n[[route]]\nname = 'r'\n", "route", 2, "unknown key", "did you mean routes?"),
    "a key of another table": ("max_matches = 5\n", "max_matches", 1, "unknown key", "belongs into [restore]"),
    "a key of several tables": ("\nport = 5\n", "port", 2, "unknown key", "known in ingress, ingress.peers.reports"),
    "nothing like it": ("[retention]\nxyz = 5\n", "retention.xyz", 2, "unknown key", "known here: vault_days, derived"),
    "missing key": ("[ingress.tls]\ncertificate = 'c'\ntrust = 't'\n", "ingress.tls.private_key", 1, "is missing", ""),
    "wrong word": ("[log]\n\nlevel = 'inof'\n", "log.level", 3, "must be 'debug', 'info'", "did you mean 'info'?"),
    "quoted number": ("[ingress]\nport = '11112'\n", "ingress.port", 2, "a whole number", "without quotes"),
    "fraction": ("[ingress]\nport = 1.5\n", "ingress.port", 2, "whole number", ""),
    "quoted switch": (WORKSTATION + "plain = 'no'\n", "restore.workstations[0].plain", 10, "true or false", "quotes"),
    "number for text": ("[site]\nname = 5\n", "site.name", 2, "must be text", "in quotes"),
    "text for a list": ("[ingress]\npeers = 'A'\n", "ingress.peers", 2, "must be a list", "["),
    "value for a table": ("site = 5\n", "site", 1, "must be a table", "[table]"),
    "date": ("[site]\nname = 1979-05-27\n", "site.name", 2, "must not be a date", ""),
    "too large": ("[worker]\nbatch = 999\n", "worker.batch", 2, "less than or equal to 256", ""),
    "not above zero": ("[worker]\npoll_s = 0\n", "worker.poll_s", 2, "greater than 0", ""),
    "too long": (f"[site]\ncontact = '{'x' * 65}'\n", "site.contact", 2, "at most 64 characters", ""),
    "empty text": ("[site]\nmanufacturer = ''\n", "site.manufacturer", 2, "at least 1 character", ""),
    "empty list": (
        "[[ingress.peers]]\nae_title = 'A'\naddresses = []\n", "ingress.peers[0].addresses", 3, "at least 1 entry", "",
    ),
    "bad name": ("[site]\nname = 'My Site'\n", "site.name", 2, "lower-case letters", ""),
    "bad AE title": (
        "[restore]\ntls_port = 1\nae_title = 'SEVENTEEN_LETTERS'\n", "restore.ae_title", 3, "1 to 16 printable", "",
    ),
    "bad address": ("[[ingress.peers]]\nae_title='A'\naddresses = ['10.0.0.1', '10.0.0.300']\n",
        "ingress.peers[0].addresses[1]", 3, "is no IP address and no network", ""),
    "bad digest": (WORKSTATION + "key_sha256 = ['AB']\n", "restore.workstations[0].key_sha256[0]", 10, "64 lower", ""),
    "bad device": ("[worker]\ndevice = 'gpu'\n", "worker.device", 2, "'auto', 'cpu', 'cuda' or 'cuda:N'", ""),
    "a secret itself": ("[keys]\nuid_key = 'c0ffee'\n", "keys.uid_key", 2, "'env:NAME' or 'credential:NAME'", ""),
    "wrong version": ("version = 2\n", "version", 1, "must be 1", ""),
    "unknown destination": (
        ROUTE.replace("pacs", "pasc") + DESTINATION, "routes[0].destinations[0]", 4, "no destination is named", "",
    ),
    "name twice": (DESTINATION + DESTINATION, "destinations[1].name", 8, "'pacs' is taken by destinations[0]", ""),
    "called AE twice": (
        DESTINATION + ROUTE + ROUTE.replace('"r"', '"s"'), "routes[1].called_ae", 13, "'R' is taken by routes[0]", "",
    ),
    "pass without the statement": (
        DESTINATION + ROUTE + 'action = "pass"\n', "routes[0].pass_statement", 7, "I trust these destinations", "",
    ),
    "pass to a destination that is not named trusted": (
        DESTINATION + ROUTE + PASS, "destinations[0].trust_statement", 1,
        'unmarked originals go there, so it must read "this destination is trusted', "",
    ),
    "a rule passes to a destination that is not named trusted": (
        DESTINATION + ROUTE + PASS.replace('action = "pass"', 'rules = [{ modality = "DOC", action = "pass" }]'),
        "destinations[0].trust_statement", 1, "must read", "",
    ),
    "a rule passes without the statement": (
        TRUSTED + ROUTE + 'rules = [{ modality = "DOC", action = "pass" }]\n', "routes[0].pass_statement", 8,
        "I trust", "",
    ),
    "trust in other words": (
        DESTINATION + "trust_statement = 'yes'\n", "destinations[0].trust_statement", 7, "when it is given", "",
    ),
    "an emergency that ends nothing": (
        DESTINATION + ROUTE + GLASS.format("2026-01-01T00:00:00Z"), "routes[0].break_glass", 11, "has no effect", "",
    ),
    "an emergency without time zone": (
        TRUSTED + ROUTE + PASS + GLASS.format("2026-01-01T00:00:00"), UNTIL, 15, "does not say in which time zone", "",
    ),
    "an emergency that ends on a date": (
        TRUSTED + ROUTE + PASS + GLASS.format("2026-01-01"), UNTIL, 15, "does not say in which time zone", "",
    ),
    "an emergency that ends at some hour": (
        TRUSTED + ROUTE + PASS + GLASS.format("08:00:00"), UNTIL, 15, "is no date and time: write it as 2026", "",
    ),
    "an emergency that ends some day": (
        TRUSTED + ROUTE + PASS + GLASS.format("'tomorrow'"), UNTIL, 15, "is no date and time: write it as 2026", "",
    ),
    "an emergency that ends at a number": (
        TRUSTED + ROUTE + PASS + GLASS.format("1767225600"), UNTIL, 15, "must be a date and a time", "",
    ),
    "an emergency without a reason": (
        TRUSTED + ROUTE + PASS + GLASS.format("2026-01-01T00:00:00Z").replace("ward server", ""),
        "routes[0].break_glass.reason", 16, "at least 10 characters", "",
    ),
    "clinical without the override": (
        DESTINATION.replace("research", "clinical"), "destinations[0].clinical_override", 1, "clinical reading", "",
    ),
    "workstation without identity": (WORKSTATION, "restore.workstations[0]", 7, "not an identity", ""),
    "workstation twice": (
        WORKSTATION + "plain=true\n[[restore.workstations]]\nae_title = 'W'\naddresses = ['10.0.0.2']\nplain=true\n",
        "restore.workstations[1].ae_title", 12, "'W' is taken by workstations[0]", "",
    ),
    "plain without a port": (
        WORKSTATION.replace("plain_port = 1\n", "") + "plain = true\n", "restore.workstations[0].plain", 9,
        "no restore.plain_port", "",
    ),
    "host without port": (WORKSTATION + "plain = true\nhost = 'h'\n", "restore.workstations[0]", 7, "go together", ""),
    "a flat mark below visibility": (
        DESTINATION + ROUTE + "[routes.mark]\ntier = 'discreet'\nmode = 'paper'\n", "routes[0].mark.mode", 13,
        "draws a visible mark", "",
    ),
    "TLS port without TLS": ("[restore]\ntls_port = 1\n", "restore.tls_port", 2, "no [restore.tls] table", ""),
    "TLS forgotten": ("[restore]\nplain_port = 1\n", "restore.tls_port", 1, "without TLS write tls_port = false", ""),
    "DICOMweb without TLS": (
        "[restore]\ntls_port = false\nplain_port = 1\ndicomweb_port = 2\n", "restore.dicomweb_port", 4,
        "no [restore.tls] table", "",
    ),
    "a web destination without a URL": (
        "[[destinations]]\nname = 'w'\nkind = 'dicomweb'\ntype = 'research'\n", "destinations[0].kind", 3,
        "has a url", "",
    ),
    "a web destination without TLS": (
        "[[destinations]]\nname = 'w'\nkind = 'dicomweb'\ntype = 'research'\nurl = 'https://h/dicomweb'\n",
        "destinations[0].url", 5, "needs a [destinations.tls] table", "",
    ),
    "a URL with a query": (
        "[[destinations]]\nname = 'w'\nkind = 'dicomweb'\ntype = 'research'\nurl = 'http://u:p@h/?a'\n",
        "destinations[0].url", 5, "a path without query", "",
    ),
    "a URL of an AE": (
        "[[destinations]]\nname = 'w'\ntype = 'research'\nurl = 'http://h/d'\nae_title = 'A'\nhost = 'h'\nport = 1\n",
        "destinations[0].url", 4, 'is of kind = "dicomweb"', "",
    ),
    "STOW without TLS": ("[ingress]\ndicomweb_port = 2\n", "ingress.dicomweb_port", 2, "no [ingress.tls] table", ""),
    "STOW from nobody": (
        "[ingress]\ndicomweb_port = 2\n[ingress.tls]\ncertificate = 'c'\nprivate_key = 'k'\ntrust = 't'\n",
        "ingress.dicomweb_port", 2, "no peer is bound to a certificate", "",
    ),
    "DICOMweb by no URL": (
        "[restore]\nplain_port = 1\ntls_port = false\ndicomweb_url = 'http://h/'\n", "restore.dicomweb_url", 4,
        "https://, a host", "",
    ),
    "no port at all": ("[restore]\ntls_port = false\n", "restore.tls_port", 2, "nobody could connect", ""),
    "true is no port": ("[restore]\ntls_port = true\n", "restore.tls_port", 2, "a whole number", ""),
    "not TOML": ("[site]\nname = \n", "", 2, "is not TOML: invalid value", ""),
    "text without quotes": ("[site]\nname = brain\n", "", 2, "is not TOML", "text stands in quotes"),
    "colon for equals": ("[site]\nname: 'x'\n", "", 2, "is not TOML", "joined by =, not by a colon"),
    "key twice": ("[site]\nname = 'a'\nname = 'b'\n", "", 3, "cannot overwrite a value", ""),
    "open at the end": ("[site]\nname = '''a\n", "", 3, "is not TOML", ""),
}  # fmt: skip


@pytest.mark.parametrize(("text", "path", "line", "message", "suggestion"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_path_line_and_suggestion(
    text: str, path: str, line: int, message: str, suggestion: str
) -> None:
    found = problems(text)
    match = [problem for problem in found if problem.path == path]
    assert len(match) == 1, found
    assert match[0].line == line
    assert message in match[0].message
    assert suggestion in match[0].suggestion


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines() -> None:
    found = problems("foo = 1\n[site]\nnaem = 'x'\n[ingress]\nport = 0\nhsot = 'h'\n")
    assert [(problem.line, problem.path) for problem in found] == [
        (1, "foo"), (3, "site.naem"), (5, "ingress.port"), (6, "ingress.hsot"),
    ]  # fmt: skip


def test_a_wrong_entry_is_not_told_twice_as_a_list_too_short() -> None:
    found = problems("[[ingress.peers]]\nae_title = 'A'\naddresses = ['x']\n")
    assert [problem.path for problem in found] == ["ingress.peers[0].addresses[0]"]


def test_the_error_is_one_text_that_names_file_and_count() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("foo = 1\nbar = 2\n", Path("some/gateway.toml"))
    assert caught.value.code == "config-invalid"
    assert str(caught.value).startswith("some/gateway.toml: 2 problems\n  line 1, foo: unknown key (")


def test_a_pasted_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("[keys]\nuid_key = 'c0ffeec0ffee'\n[database]\nurl = 5\n", Path("gateway.toml"))
    assert "c0ffee" not in str(caught.value)


def test_paths_and_file_references_are_meant_against_the_file_not_the_working_folder(
    tmp_path: Path, monkeypatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "gateway.toml").write_text(
        '[site]\nstate = "var"\n[keys]\nuid_key = "file:k/uid.key"\nmark_key = "env:MARK"\nspool_key = "file:/abs/s"\n'
        'signing_key = "file:~/sign"\ntrusted_signers = ["file:a", "file:b"]\n[database]\nurl = "file:db"\n'
        '[ingress.tls]\ncertificate = "c.pem"\nprivate_key = "/abs/c.key"\ntrust = "trust"\n'
    )
    monkeypatch.chdir(tmp_path)
    config = load_config("etc/gateway.toml")
    assert config.site.state == folder / "var"
    assert config.keys.uid_key == f"file:{folder}/k/uid.key"
    assert config.keys.mark_key == "env:MARK"
    assert config.keys.spool_key == "file:/abs/s"
    assert config.keys.signing_key == f"file:{home}/sign"
    assert config.keys.trusted_signers == (f"file:{folder}/a", f"file:{folder}/b")
    assert config.keys.restore_public_key == f"file:{folder}/keys/restore.public.pem"  # a default, and absolute as well
    assert config.database.url == f"file:{folder}/db"
    assert config.ingress.tls.certificate == folder / "c.pem"
    assert config.ingress.tls.private_key == Path("/abs/c.key")


def test_the_database_url_is_the_embedded_file_or_what_a_reference_says(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "gateway.toml"
    embedded = parse_config("[site]\nstate = 'var'\n", file)
    assert embedded.database_url == f"sqlite:///{tmp_path}/var/gateway.sqlite"
    monkeypatch.setenv("MIAD_DATABASE_URL", "postgresql://u:p@h/d\n")
    referred = parse_config("[database]\nurl = 'env:MIAD_DATABASE_URL'\n", file)
    assert "p@h" not in repr(referred)
    assert referred.database_url == "postgresql://u:p@h/d"


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(b"\xef\xbb\xbf[site]\r\nname = 'here'\r\n")
    assert load_config(file).site.name == "here"


def test_a_file_that_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(b"[site]\n# caf\xe9\n")
    with pytest.raises(InvalidConfigError) as caught:
        load_config(file)
    assert (caught.value.code, caught.value.problems[0].line) == ("config-syntax", 2)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_config(tmp_path / "none.toml")
    assert caught.value.code == "config-missing"
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize("written", ["2026-01-01T08:00:00+01:00", "2026-01-01 07:00:00Z", "'2026-01-01T07:00:00Z'"])
def test_the_end_of_an_emergency_is_a_toml_time_or_the_same_as_text(written: str) -> None:
    config = parse_config(TRUSTED + ROUTE + PASS + GLASS.format(written), Path("gateway.toml"))
    glass = config.routes[0].break_glass
    assert (glass.until.timestamp(), glass.reason) == (1767250800.0, "ward server down")
    assert type(config).model_validate_json(config.model_dump_json(), strict=True) == config


def test_settings_do_not_change_after_loading() -> None:
    config = parse_config("", Path("gateway.toml"))
    with pytest.raises(Exception, match="frozen"):
        config.site.name = "other"


def test_a_restore_role_without_tls_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    workstation = "[[restore.workstations]]\nae_title = 'W'\naddresses = ['127.0.0.1']\nplain = true\n"
    file.write_text(f"[restore]\nplain_port = 11114\ntls_port = false\n{workstation}")
    restore = load_config(file).restore
    assert restore is not None
    assert (restore.tls_port, restore.plain_port) == (None, 11114)
    where = [finding.where for finding in check_config(load_config(file), "restore") if finding.level == "warning"]
    assert where == ["restore.workstations[0].plain"]  # on loopback: no more than what the workstation itself says
    file.write_text(file.read_text().replace("plain_port = 11114", "plain_port = 11114\nhost = '0.0.0.0'"))
    where = [finding.where for finding in check_config(load_config(file), "restore") if finding.level == "warning"]
    assert "restore" in where
