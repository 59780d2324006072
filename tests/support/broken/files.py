"""Keys, certificates and other files that are missing, wrong, open or out of date."""

from __future__ import annotations

from tests.support.broken.site import Row, Site, add, put
from tests.support.cli_certificates import make_certificate

PACK = '[[surrogates]]\nname = "site-brain"\npack = "site-brain/pack.toml"'


def _gone(name: str):
    return lambda site: (site.folder / name).unlink()


def _garbage(name: str):
    return lambda site: (site.folder / name).write_text("not what it should be\n")


def _mode(name: str, mode: int):
    return lambda site: (site.folder / name).chmod(mode)


def _other_pair(site: Site) -> None:
    """The public key of another site: what it seals nobody here could open."""
    from gateway.keys.generate import make_keys

    make_keys(site.folder / "other")
    (site.folder / "other" / "restore.public.pem").replace(site.folder / "keys" / "restore.public.pem")


def _other_tls_key(site: Site) -> None:
    make_certificate(site.folder / "other", "own")
    (site.folder / "other" / "own.key").replace(site.folder / "tls" / "own.key")


def _dated(days: float, begun: float):
    return lambda site: make_certificate(site.folder / "tls", "own", days=days, begun=begun)


def _no_authority(site: Site) -> None:
    (site.folder / "tls" / "trust" / "own.pem").unlink()


ROWS = (
    Row("a key that is not there", _gone("keys/uid.key"), 2, ("keys.uid_key", "cannot read", "uid.key")),
    Row("a key that is none", _garbage("keys/mark.key"), 2, ("keys", "mark.key"), "serve --role worker"),
    Row("a public key that is none", _garbage("keys/restore.public.pem"), 2, ("keys", "restore.public.pem")),
    Row("a private key open to all", _mode("keys/uid.key", 0o644), 2, ("keys.uid_key", "chmod 600")),
    Row("the restore keys are no pair", _other_pair, 2, ("keys", "proof")),
    Row(
        "a variable that is not set",
        add('[keys]\nuid_key = "env:MIAD_NO_SUCH"'),
        2,
        ("keys.uid_key", "MIAD_NO_SUCH is not set"),
    ),
    Row(
        "a variable that holds half a key",
        add('[keys]\nuid_key = "env:MIAD_HALF"'),
        2,
        ("keys", "32"),
        variables={"MIAD_HALF": "abcd"},
    ),
    Row(
        "a credential outside of systemd",
        add('[keys]\nuid_key = "credential:uid.key"'),
        2,
        ("keys.uid_key", "CREDENTIALS_DIRECTORY"),
    ),
    Row("no certificate", _gone("tls/own.pem"), 2, ("restore.tls.certificate", "cannot find")),
    Row("a certificate that is none", _garbage("tls/own.pem"), 2, ("restore.tls", "own.pem")),
    Row("a certificate and another one's key", _other_tls_key, 2, ("restore.tls",)),
    Row("a private key of TLS open to all", _mode("tls/own.key", 0o644), 2, ("restore.tls.private_key", "chmod 600")),
    Row("a certificate that has ended", _dated(-1, 90), 2, ("restore.tls.certificate", "ended on")),
    Row("a certificate of tomorrow", _dated(90, -1), 2, ("restore.tls.certificate", "valid from", "clock")),
    Row("no authority in the trust folder", _no_authority, 2, ("restore.tls.trust",)),
    Row("an authority that is none", _garbage("tls/trust/own.pem"), 2, ("restore.tls", "own.pem")),
    Row(
        "a path with a letter too few",
        put('"tls/own.key"', '"/etc/miad-gatway/tls/own.key"'),
        2,
        ("restore.tls.private_key", "/etc/miad-gatway/tls/own.key"),
    ),
    Row(
        "a logo that is not there",
        put("[[destinations]]", '[routes.mark]\nlogo = "logo.png"\n[[destinations]]'),
        2,
        ("routes[0].mark.logo", "logo.png"),
    ),
    Row("a pack that is not there", add(PACK), 2, ("surrogates[0].pack", "pack.toml")),
    Row(
        "users of the page open to others",
        lambda site: (site.folder / "page-users").write_text(""),
        2,
        ("page.users", "chmod o="),
    ),
)
