"""`check_config`: what it finds wrong for which role, what it warns of, and what it must never read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config import Finding, SecretRef, check_config, default_config, default_state_folder, load_config
from gateway.config.duties import READS, WRITES, foreign_variables, roles_to_start
from gateway.config.models import CLINICAL_STATEMENT, OPT_IN_STATEMENTS
from gateway.config.passing import BREAK_GLASS_HOURS, PASS_STATEMENT, TRUST_STATEMENT
from gateway.errors import ConfigError

STORE = """[page]
[store]
url = "s3://vault/site"
endpoint = "{}"
access_key_id = "file:tls/own.key"
secret_access_key = "file:tls/own.key"
"""
ROLES = ("all", "ingress", "worker", "restore", "page")


def of(findings: list[Finding], where: str) -> list[Finding]:
    return [finding for finding in findings if finding.where == where]


@pytest.mark.parametrize("role", ROLES)
def test_a_good_site_has_no_findings(site, role: str) -> None:
    assert check_config(site.config(), role) == []


KEYS_OF_ROLE = {
    "all": {"spool_key", "signing_key", "uid_key", "mark_key", "restore_public_key", "trusted_signers[0]"},
    "ingress": {"spool_key"},
    "worker": {"spool_key", "signing_key", "uid_key", "mark_key", "restore_public_key", "trusted_signers[0]"},
    "restore": {"restore_private_key", "trusted_signers[0]"},
    "page": set(),
}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_resolves_its_own_secrets_and_no_other(site, role: str, monkeypatch) -> None:
    resolved = []
    original = SecretRef.resolve

    def spy(self: SecretRef, *, private: bool = True) -> bytes:
        resolved.append(str(self))
        return original(self, private=private)

    monkeypatch.setattr(SecretRef, "resolve", spy)
    config = site.config()
    check_config(config, role)
    wanted = {getattr(config.keys, name) for name in KEYS_OF_ROLE[role] - {"trusted_signers[0]"}}
    wanted |= set(config.keys.trusted_signers) if "trusted_signers[0]" in KEYS_OF_ROLE[role] else set()
    assert set(resolved) == wanted
    assert (config.keys.restore_private_key in resolved) == (role == "restore")


@pytest.mark.parametrize("role", ROLES)
def test_missing_keys_are_errors_of_the_roles_that_need_them(site, role: str) -> None:
    config = site.config()
    for file in (site.folder / "keys").iterdir():
        file.unlink()
    found = {finding.where.removeprefix("keys.") for finding in check_config(config, role) if finding.level == "error"}
    assert found == KEYS_OF_ROLE[role] | ({"restore_private_key"} if role == "all" else set())


@pytest.mark.parametrize("name", ["spool.key", "uid.key", "mark.key", "signing.private.pem", "restore.private.pem"])
def test_a_private_key_that_others_can_read_is_an_error(site, name: str) -> None:
    config = site.config()
    (site.folder / "keys" / name).chmod(0o640)
    (finding,) = check_config(config)
    assert finding.level == "error"
    assert "can be read by group or others" in finding.message
    assert finding.hint == f"chmod 600 {site.folder / 'keys' / name}"


def test_a_public_key_may_be_read_by_all(site) -> None:
    (site.folder / "keys" / "restore.public.pem").chmod(0o644)
    assert check_config(site.config()) == []


def test_an_environment_variable_that_is_not_set_is_an_error(site, monkeypatch) -> None:
    monkeypatch.delenv("MIAD_TEST_KEY", raising=False)
    config = site.config(added='[keys]\nspool_key = "env:MIAD_TEST_KEY"\n')
    (finding,) = check_config(config)
    assert (finding.where, finding.message) == ("keys.spool_key", "environment variable MIAD_TEST_KEY is not set")
    monkeypatch.setenv("MIAD_TEST_KEY", "00" * 32)
    assert check_config(config) == []


@pytest.mark.parametrize("name", ["own.pem", "own.key", "trust/ca.pem"])
def test_missing_tls_files_are_errors_of_the_restore_role_only(site, name: str) -> None:
    config = site.config()
    (site.folder / "tls" / name).unlink()
    (finding,) = check_config(config, "restore")
    assert finding.level == "error"
    assert finding.where.startswith("restore.tls.")
    assert check_config(config, "ingress") == check_config(config, "worker") == []


def test_a_tls_key_that_others_can_read_is_an_error(site) -> None:
    config = site.config()
    (site.folder / "tls" / "own.key").chmod(0o644)
    (finding,) = check_config(config)
    assert (finding.level, finding.where) == ("error", "restore.tls.private_key")


def test_a_state_path_that_is_a_file_is_an_error(site) -> None:
    (site.folder / "state").write_text("")
    (finding,) = check_config(site.config())
    assert (finding.level, finding.where) == ("error", "site.state")


def test_a_state_folder_open_to_others_is_a_warning(site) -> None:
    (site.folder / "state").mkdir(mode=0o755)
    (site.folder / "state").chmod(0o755)
    (finding,) = check_config(site.config())
    assert (finding.level, finding.where, finding.hint) == ("warning", "site.state", "chmod 700")


def test_a_state_folder_that_cannot_be_made_is_an_error(site) -> None:
    (site.folder / "file").write_text("")
    (finding,) = check_config(site.config(added='[site]\nstate = "file/below/a/file"\n'))
    assert (finding.level, finding.where) == ("error", "site.state")
    assert "cannot be made" in finding.message


RAW = OPT_IN_STATEMENTS["for_processing"]

PASS = f'pass_statement = "{PASS_STATEMENT}"'
TRUSTED = f'name = "pacs"\ntrust_statement = "{TRUST_STATEMENT}"'

# what is changed, what is added, level, where, words
SAID = {
    "password in the file": ({}, "[database]\nurl = 'postgresql://u:pw@h/d'\n", "warning", "database.url", "password"),
    "ports equal": ({"[restore]": "[restore]\ntls_port = 11112"}, "", "error", "restore.tls_port", "ingress.port"),
    "ports equal, any host": (
        {"[restore]": "[restore]\nhost = '0.0.0.0'\ntls_port = 11112"}, "", "error", "restore.tls_port", "taken by",
    ),
    "a loop": ({"port = 11113": "port = 11112"}, "", "warning", "destinations[0].port", "our own ingress.port"),
    "a loop, any host": (
        {"[[routes]]": "[ingress]\nhost = '0.0.0.0'\n[ingress.tls]\ncertificate = 'tls/own.pem'\n"
         "private_key = 'tls/own.key'\ntrust = 'tls/trust'\n[[routes]]", "port = 11113": "port = 11112"},
        "", "warning", "destinations[0].port", "our own ingress.port",
    ),
    "any address": ({'"10.0.0.1"': '"0.0.0.0/0"'}, "", "warning", "ingress.peers[0].addresses[0]", "any machine"),
    "clear text in": (
        {"[[routes]]": "[ingress]\nhost = '0.0.0.0'\n[[routes]]"}, "", "warning", "ingress", "0.0.0.0 in clear text",
    ),
    "clear text out": ({'"localhost"': '"pacs.example"'}, "", "warning", "destinations[0]", "pacs.example in clear"),
    "a pass route": (
        {'called_ae = "RESEARCH"': f'called_ae = "R"\naction = "pass"\n{PASS}', 'name = "pacs"': TRUSTED}, "",
        "warning", "routes[0].action", "UNMARKED ORIGINALS out to pacs; every",
    ),
    "a rule that passes": (
        {'called_ae = "RESEARCH"': f'called_ae = "R"\n{PASS}\nrules = [{{ modality = "DOC", action = "pass" }}]',
         'name = "pacs"': TRUSTED}, "",
        "warning", "routes[0].rules[0].action", "a rule of route research lets UNMARKED ORIGINALS out to pacs",
    ),
    "trust that nobody needs": (
        {'name = "pacs"': TRUSTED}, "", "warning", "destinations[0].trust_statement", "no route passes any to it",
    ),
    "a hazard given up": (
        {"[[destinations]]": f"[routes.opt_in]\nfor_processing = '{RAW}'\n[[destinations]]"},
        "", "warning", "routes[0].opt_in.for_processing", "marks for processing images",
    ),
    "no steps": ({"[[destinations]]": "[routes.mark]\nsteps = 0\n[[destinations]]"}, "", "warning",
        "routes[0].mark.steps", "misleads no model"),
    "no logo": ({"[[destinations]]": "[routes.mark]\nlogo = 'none.png'\n[[destinations]]"}, "", "error",
        "routes[0].mark.logo", "cannot find"),
    "no generator": (
        {"[[destinations]]": "[routes.mark]\nmode = 'generator'\ngenerator = 'none.safetensors'\n[[destinations]]"}, "",
        "error", "routes[0].mark.generator", "cannot find",
    ),
    "originals in the copies only": (
        {"[[routes]]": '[[routes]]\nrestoration = "carried"'}, "",
        "warning", "routes[0].restoration", "only the marked",
    ),
    "one destination, two studies": (
        {}, '[[routes]]\nname = "b"\ncalled_ae = "B"\ndestinations = ["pacs"]\nstudy_uid = "new"\n',
        "error", "routes[1].study_uid", 'pacs gets copies with study_uid = "keep" by route research already',
    ),
    "two looks of one study": (
        {}, '[[routes]]\nname = "b"\ncalled_ae = "B"\ndestinations = ["pacs"]\nmark = { text = "B" }\n',
        "warning", "routes[1].study_uid", "by research and by b there are two different copies",
    ),
    "a clinical destination": (
        {'type = "research"': f'type = "clinical"\nclinical_override = "{CLINICAL_STATEMENT}"'}, "",
        "warning", "destinations[0].type", "CLINICAL and gets marked copies",
    ),
    "an unused destination": (
        {}, "[[destinations]]\nname = 'x'\ntype = 'external'\nae_title = 'X'\nhost = 'h'\nport = 1\n",
        "warning", "destinations[1].name", "no route sends to x",
    ),
    "a store without TLS": (
        {"[page]": STORE.format("http://store.example:8333")}, "",
        "warning", "store.endpoint", "can answer in its place",
    ),
    "a store without its authority": (
        {"[page]": STORE.format("https://store.example") + 'trust = "none.pem"'}, "",
        "error", "store.trust", "cannot find",
    ),
    "a balancer anywhere": (
        {"[restore]": '[restore]\nbalancers = ["10.0.0.5", "0.0.0.0/0"]'}, "",
        "error", "restore.balancers[1]", "lets any machine say which address it calls from",
    ),
    "a plain workstation": (
        {"[restore]": "[restore]\nplain_port = 11114", 'san = ["reader.example"]': "plain = true"}, "",
        "warning", "restore.workstations[0].plain", "whoever calls itself READER from 10.0.0.2 is believed",
    ),
    "two workstations of one certificate": (
        {"[restore]": "[restore]\ndicomweb_port = 8443"},
        "[[restore.workstations]]\nae_title = 'OTHER'\naddresses = ['10.0.0.3']\nsan = ['reader.example']\n",
        "warning", "restore.workstations[1].san", "READER is bound to the same",
    ),
    "DICOMweb on a port that is taken": (
        {"[restore]": "[restore]\ndicomweb_port = 11112"}, "", "error", "restore.dicomweb_port", "ingress.port",
    ),
    "originals in clear text": (
        {'san = ["reader.example"]': 'san = ["r"]\nreceive_plain = true\nhost = "10.0.0.2"\nport = 104'}, "",
        "warning", "restore.workstations[0].receive_plain", "travel to READER at 10.0.0.2:104 in clear text",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "added", "level", "where", "words"), SAID.values(), ids=SAID.keys())
def test_what_is_bold_or_wrong_is_said_in_words(site, changed, added, level, where, words) -> None:
    (finding,) = check_config(site.config(changed, added))
    assert (finding.level, finding.where) == (level, where)
    assert words in finding.message


def test_routes_that_look_alike_or_have_studies_of_their_own_are_all_right(site) -> None:
    other = "[[destinations]]\nname = 'x'\ntype = 'external'\nae_title = 'X'\nhost = 'localhost'\nport = 1\n"
    route = '[[routes]]\nname = "b"\ncalled_ae = "B"\ndestinations = ["x"]\n'
    assert check_config(site.config({}, route + other)) == []
    assert check_config(site.config({}, f'{route}study_uid = "new"\nmark = {{ text = "B" }}\n{other}')) == []


def emergency(site, hours: float) -> list[Finding]:
    """Findings of a route whose pass ends that many hours from now."""
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    table = f"[routes.break_glass]\nuntil = {until}\nreason = 'storage of the ward failed'\n[[destinations]]"
    passing = f'called_ae = "R"\naction = "pass"\n{PASS}'
    return check_config(
        site.config({'called_ae = "RESEARCH"': passing, 'name = "pacs"': TRUSTED, "[[destinations]]": table})
    )


def test_an_emergency_is_told_with_its_end_and_its_reason(site) -> None:
    (finding,) = emergency(site, 1)
    assert (finding.level, finding.where) == ("warning", "routes[0].action")
    assert "out to pacs until 20" in finding.message
    assert "(storage of the ward failed)" in finding.message


def test_an_emergency_that_is_over_or_too_long_is_an_error(site) -> None:
    """One that is over must not keep the other routes from starting again: its own holds."""
    (over,) = emergency(site, -0.01)
    assert (over.level, over.where, over.keeps_from_starting) == ("error", "routes[0].break_glass.until", False)
    assert "what it would pass is held" in over.message
    (too_long,) = emergency(site, BREAK_GLASS_HOURS + 0.1)
    assert (too_long.level, too_long.where, too_long.keeps_from_starting) == ("error", over.where, True)
    assert f"more than {BREAK_GLASS_HOURS} hours ahead" in too_long.message
    assert [finding.level for finding in emergency(site, BREAK_GLASS_HOURS - 0.1)] == ["warning"]


def test_the_password_itself_is_not_repeated(site) -> None:
    (finding,) = check_config(site.config(added="[database]\nurl = 'postgresql://u:s3cret@h/d'\n"))
    assert "s3cret" not in finding.message + finding.hint


def test_nobody_who_may_send_and_nothing_to_restore_are_warned_of(site) -> None:
    file = site.folder / "empty.toml"
    file.write_text("")
    from gateway.config import load_config

    config = load_config(file)
    assert {(f.level, f.where) for f in check_config(config)} == {
        ("warning", "ingress.peers"), ("warning", "routes"), ("warning", "restore"),
    }  # fmt: skip
    assert [(f.level, f.where) for f in check_config(config, "restore")] == [("error", "restore")]


def test_errors_stand_before_warnings(site) -> None:
    config = site.config({"port = 11113": "port = 11112"}, "[keys]\nspool_key = 'env:MIAD_NOT_SET'\n")
    assert [finding.level for finding in check_config(config)] == ["error", "warning"]


def test_the_local_default_is_valid_and_lies_in_its_folder(tmp_path: Path) -> None:
    from gateway.keys.generate import make_keys

    make_keys(tmp_path / "keys")
    tmp_path.chmod(0o700)
    config = default_config(tmp_path)
    assert type(config).model_validate_json(config.model_dump_json()) == config  # holds all rules of a written file
    assert config.site.state == tmp_path
    assert config.keys.uid_key.path == tmp_path / "keys" / "uid.key"
    assert [route.name for route in config.routes] == ["local"]
    assert [f for f in check_config(config, "worker") if f.level == "error"] == []


@pytest.mark.parametrize("base", ["", "relative/folder"])
def test_the_local_state_folder_follows_the_xdg_rules(tmp_path: Path, monkeypatch, base: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert default_state_folder() == tmp_path / "xdg" / "miad-gateway"
    monkeypatch.setenv("XDG_STATE_HOME", base)
    assert default_state_folder() == tmp_path / ".local" / "state" / "miad-gateway"


def test_a_site_without_routes_has_no_ingress(site) -> None:
    """As `vault recover` leaves one: the role says why it does not start, once; the others are not concerned."""
    (site.folder / "empty.toml").write_text("")
    config = load_config(site.folder / "empty.toml")
    assert ("error", "ingress") in {(f.level, f.where) for f in check_config(config, "ingress")}
    assert "error" not in {f.level for role in ("all", "worker") for f in check_config(config, role)}


@pytest.mark.parametrize("role", ["ingress", "worker", "restore"])
def test_folders_of_separate_users(site, role: str) -> None:
    """A role needs its own, made beforehand; whether it is kept from the others' is seen by mode."""
    config = site.config()
    state = site.folder / "state"
    for name in ("database", *WRITES[role], *READS[role]):
        (state / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    state.chmod(0o755)
    assert check_config(config, role) == []
    missing = state / WRITES[role][-1]
    missing.rmdir()
    (finding,) = check_config(config, role)
    assert (finding.level, finding.where) == ("error", "site.state")
    assert str(missing) in finding.message and "deploy/systemd" in finding.hint
    missing.mkdir()
    missing.chmod(0o750)  # audit: nobody else's
    (finding,) = check_config(config, role)
    assert (finding.level, "open to group or others" in finding.message) == ("warning", True)


def test_a_credential_is_read_from_the_folder_that_the_service_manager_names(site, monkeypatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config = site.config(added='[keys]\nspool_key = "credential:spool.key"\n')
    (finding,) = check_config(config, "ingress")
    assert (finding.level, finding.where) == ("error", "keys.spool_key")
    assert "LoadCredential=spool.key:PATH" in finding.hint
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site.folder / "keys"))
    assert check_config(config, "ingress") == []
    (site.folder / "keys" / "spool.key").chmod(0o640)  # an ACL's mask shows so: systemd gives the user in by one
    assert check_config(config, "ingress") == []
    (site.folder / "keys" / "spool.key").chmod(0o604)
    (finding,) = check_config(config, "ingress")
    assert "can be read by others" in finding.message
    (site.folder / "keys" / "spool.key").unlink()
    (finding,) = check_config(config, "ingress")
    assert "cannot read the credential spool.key" in finding.message


@pytest.mark.parametrize("name", ["../keys/spool.key", "/etc/shadow", "a b", ".hidden", ""])
def test_the_name_of_a_credential_is_no_path(site, name: str) -> None:
    with pytest.raises(ConfigError):
        site.config(added=f'[keys]\nspool_key = "credential:{name}"\n')


# --- the page


def test_the_page_warns_of_what_others_could_see(site) -> None:
    (found,) = check_config(site.config(added='host = "10.0.0.5"'), "page")
    assert (found.level, found.where) == ("warning", "page.host") and "sees the queue" in found.message


def test_the_page_s_users_are_closed_to_others(site) -> None:
    (nobody,) = check_config(site.config(added='view = "login"'), "page")
    assert (nobody.level, nobody.where) == ("error", "page.view") and "page user add" in nobody.hint
    users = site.folder / "page-users"
    users.write_text("")
    users.chmod(0o644)
    (open_to_all,) = check_config(site.config(), "page")
    assert (open_to_all.level, open_to_all.where) == ("error", "page.users")
    users.chmod(0o640)
    assert check_config(site.config(added='view = "login"'), "page") == []


def test_the_page_has_a_port_and_an_account_of_its_own(site, monkeypatch) -> None:
    (found,) = of(check_config(site.config(added="port = 11112"), "page"), "page.port")
    assert found.level == "error" and "ingress.port" in found.message
    monkeypatch.delenv("MIAD_PAGE_URL", raising=False)
    own = site.config(added='database_url = "env:MIAD_PAGE_URL"')
    assert [one.where for one in check_config(own, "page")] == ["page.database_url"]
    assert check_config(own, "worker") == []
    general = site.config(added='[database]\nurl = "env:MIAD_DATABASE_URL"\n')
    monkeypatch.delenv("MIAD_DATABASE_URL", raising=False)
    assert [one.where for one in check_config(general, "page")] == ["database.url"]


def test_the_page_s_account_is_kept_from_the_others_and_theirs_from_it(site) -> None:
    both = 'database_url = "env:MIAD_PAGE_URL"\n[database]\nurl = "env:MIAD_DATABASE_URL"\n'
    config = site.config(added=both)
    assert foreign_variables(config, "page") == {"MIAD_DATABASE_URL"}
    assert foreign_variables(config, "worker") == {"MIAD_PAGE_URL"}


def test_the_page_is_a_role_where_it_has_a_table(site) -> None:
    assert roles_to_start(site.config()) == ["ingress", "worker", "restore", "page"]
    config = site.config({"[page]": ""})
    assert roles_to_start(config) == ["ingress", "worker", "restore"]
    (found,) = check_config(config, "page")
    assert (found.level, found.where) == ("error", "page")
