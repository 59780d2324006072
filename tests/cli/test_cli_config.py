"""`config check` and `serve`: the sample under deploy/ is right, and wrong files stop before anything starts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.config.load import parse_config
from gateway.config.problems import _model_in

REPOSITORY = Path(__file__).parent.parent.parent
SAMPLE = (REPOSITORY / "deploy" / "gateway.toml").read_text("utf-8")

# Commented keys whose sample value is not the default, and why.
NOT_DEFAULTS = {
    "key_sha256",  # a placeholder
    "plain_port", "dicomweb_port",  # off unless written
    "certificate", "private_key", "trust", "crl",  # tables that are off unless written
    "name", "pack",  # of [[surrogates]]
    "steps",  # None: what the mark itself takes
    "schedule",  # none unless written
    "on", "first_s", "longest_s", "attempts",  # of [[destinations.retries]]
    "host", "port", "calling_ae",  # of [ingress.peers.reports]
    "logo",  # None: the text
    "restore_proof",  # None: beside the public key
    "url", "endpoint", "access_key_id", "secret_access_key",  # of [store]
    "issuer", "audience", "keys_file",  # of [restore.tokens] and [page.oidc]
    "client_id", "client_secret", "page_url", "operators", "viewers",
    "user", "password", "sender", "to", "secret",  # of [notify]
    "mammography", "quantitative", "for_processing",  # sentences of [routes.opt_in]: nothing is given up unless written
}  # fmt: skip


@pytest.mark.parametrize("role", ["all", "ingress", "worker", "restore"])
def test_the_sample_passes_when_its_keys_exist(run, sample: Path, role: str) -> None:
    done = run("config", "check", "--config", sample, "--role", role)
    assert (done.code, done.out) == (0, ""), done.err
    assert done.err == f"{sample}: all right\n"


def test_checking_writes_nothing(run, sample: Path) -> None:
    before = sorted(sample.parent.rglob("*"))
    run("config", "check", "--config", sample)
    assert sorted(sample.parent.rglob("*")) == before


def test_the_sample_names_every_table_and_key(sample: Path) -> None:
    """A new setting is not done before the sample explains it."""
    names = {*re.findall(r"^(?:# )?(\w+) =", SAMPLE, re.MULTILINE), *re.findall(r"(\w+)\]", SAMPLE)}
    only_in_words = {"pass_statement", "clinical_override", "generator", "sop_class", "modality", "photometric"}
    only_in_words |= {"trust_statement", "break_glass", "until", "reason", "without_air", "when"}
    only_in_words |= {"fallback", "body_part", "description", "tags", "tag", "creator", "like"}  # of rules
    assert all(name in SAMPLE for name in only_in_words)
    assert set(all_keys(Config)) - names - only_in_words == set()


def all_keys(model: Any) -> set[str]:
    keys = set(model.model_fields)
    for field in model.model_fields.values():
        inner = _model_in(field.annotation)
        if inner is not None:
            keys |= all_keys(inner)
    return keys


def test_what_the_sample_comments_out_stands_at_its_default() -> None:
    commented = re.sub(r"^# (\[?\[?[\w.]+\]?\]?$|\w+ = )", r"\1", SAMPLE, flags=re.MULTILINE)
    written = [match[1] for match in re.finditer(r"^# (\w+) = ", SAMPLE, re.MULTILINE)]
    assert len(written) > 30
    with_all = tomllib.loads(re.sub(r'"<64 hexadecimal digits>"', f'"{"0" * 64}"', commented))
    text = re.sub(r'"<64 hexadecimal digits>"', f'"{"0" * 64}"', commented)
    parse_config(text, Path("gateway.toml"))  # every commented key is known, and in the right table
    wrong = list(compare(with_all, tomllib.loads(SAMPLE), Config))
    assert wrong == []


def compare(full: dict[str, Any], plain: dict[str, Any], model: Any):
    """Keys in `full` alone (the commented ones) whose value is not the model's default."""
    for key, value in full.items():
        field = model.model_fields[key]
        inner = _model_in(field.annotation)
        if inner is not None and value != []:
            for one, other in zip(
                value if isinstance(value, list) else [value],
                plain.get(key, [{}]) if isinstance(value, list) else [plain.get(key, {})],
                strict=True,
            ):
                yield from compare(one, other, inner)
        elif key not in plain and key not in NOT_DEFAULTS:
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            default = str(default) if isinstance(default, Path) else default
            if value != default:
                yield key, value, default


def test_a_mistake_is_told_with_its_line_and_code_2(run, sample: Path) -> None:
    sample.write_text(sample.read_text().replace('destinations = ["research-pacs"]', 'destnations = ["research-pacs"]'))
    line = next(n for n, text in enumerate(sample.read_text().splitlines(), 1) if text.startswith("destnations"))
    done = run("config", "check", "--config", sample)
    assert done.code == 2
    assert f"  line {line}, routes[0].destnations: unknown key (did you mean destinations?)\n" in done.err
    assert "code: config-invalid" in done.err


def test_json_gives_a_row_for_each_mistake(run, sample: Path) -> None:
    sample.write_text("version = 2\n[site]\nnaem = 'x'\n")
    done = run("config", "check", "--config", sample, "--json")
    assert done.code == 2
    assert done.rows == [
        {"level": "error", "path": "version", "line": 1, "file": "", "message": "must be 1", "hint": ""},
        {
            "level": "error",
            "path": "site.naem",
            "line": 3,
            "file": "",
            "message": "unknown key",
            "hint": "did you mean name?",
        },
    ]


def test_json_gives_a_row_for_each_finding(run, sample: Path) -> None:
    (sample.parent / "keys" / "uid.key").unlink()
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    done = run("config", "check", "--config", sample, "--json")
    assert done.code == 2
    assert [(row["level"], row["path"]) for row in done.rows] == [
        ("error", "keys.uid_key"), ("warning", "routes[0].mark.steps"),
    ]  # fmt: skip
    lines = sample.read_text().splitlines()
    assert lines[done.rows[0]["line"] - 1].startswith("uid_key")
    assert lines[done.rows[1]["line"] - 1] == "steps = 0"


def test_warnings_alone_are_code_0(run, sample: Path) -> None:
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    done = run("config", "check", "--config", sample)
    assert done.code == 0
    assert done.out.startswith("warning: line ")


def test_a_key_that_is_no_key_is_found_before_the_first_patient(run, sample: Path) -> None:
    (sample.parent / "keys" / "uid.key").write_text("not hexadecimal")
    done = run("config", "check", "--config", sample)
    assert done.code == 2
    assert "keys.uid_key" in done.out


def test_a_certificate_that_does_not_fit_its_key_is_found(run, sample: Path) -> None:
    from tests.support.cli_certificates import make_certificate

    make_certificate(sample.parent / "other")
    (sample.parent / "other" / "restore.key").replace(sample.parent / "tls" / "restore.key")
    done = run("config", "check", "--config", sample, "--json")
    assert done.code == 2
    assert [row["path"] for row in done.rows] == ["restore.tls"]


@pytest.mark.parametrize("role", ["all", "ingress", "worker"])
def test_no_role_but_restore_needs_to_read_the_private_key(run, sample: Path, role: str) -> None:
    (sample.parent / "keys" / "restore.private.pem").write_text("not a key")
    assert run("config", "check", "--config", sample, "--role", role).code == 0
    assert run("config", "check", "--config", sample, "--role", "restore").code == 2


@pytest.mark.parametrize("role", ["all", "ingress", "worker", "restore"])
def test_serve_does_not_start_on_a_wrong_configuration(run, sample: Path, role: str) -> None:
    sample.write_text("[site]\nnaem = 'x'\n")
    done = run("serve", "--config", sample, "--role", role)
    assert done.code == 2
    assert "line 2, site.naem: unknown key" in done.err
    assert not (sample.parent / "state").exists()


def test_serve_does_not_start_without_its_keys(run, sample: Path) -> None:
    (sample.parent / "keys" / "spool.key").unlink()
    done = run("serve", "--config", sample, "--role", "ingress")
    assert done.code == 2
    assert f"error: {sample}: line " in done.err and ", keys.spool_key: cannot read" in done.err  # place and reason
    assert not (sample.parent / "state").exists()


def test_the_file_may_be_named_by_a_variable(run, sample: Path) -> None:
    assert run("config", "check", MIAD_GATEWAY_CONFIG=str(sample)).code == 0
