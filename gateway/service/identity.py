"""How the words of an identity provider are checked: rules, keys and requests put together from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.identity import Issuer, Oidc, Tokens
from gateway.errors import ConfigError
from gateway.identity import KeySource, TokenRules
from gateway.identity.discovery import Discovery
from gateway.identity.jwks import AnyKey, read_keys
from gateway.identity.login import Proofs, Provider
from gateway.network.fetching import Fetcher

if TYPE_CHECKING:
    from gateway.network.retrieve.dicomweb.bearer import Bearer

LOGIN_S = 12 * 3600.0  # as long as a session at the page lasts at most (`gateway.web.sessions`)


class _KeysOfFile:
    """The keys that a file holds; it is read once, and a reload reads it again."""

    def __init__(self, file: Path) -> None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigError("keys-unreadable", f"cannot read {file}: {error.strerror}", "correct the path") from None
        self._keys = read_keys(data, str(file))

    def of(self, key_id: str | None) -> list[AnyKey]:
        return [key for key in self._keys if key_id is None or key.kid == key_id]


def discovery_of(issuer: Issuer) -> Discovery:
    """What asks the issuer, and nobody else. ConfigError: its `trust` cannot be used."""
    return Discovery(issuer.issuer, Fetcher(issuer.issuer, issuer.trust, issuer.timeout_s))


def rules_of(
    issuer: Issuer, audience: str, discovery: Discovery | None = None, longest_s: float = 86_400.0
) -> TokenRules:
    """What tokens of that issuer have to be. ConfigError: its keys' file, or `trust`, cannot be used."""
    if issuer.keys_file is not None:
        return TokenRules(issuer.issuer, audience, _KeysOfFile(issuer.keys_file), longest_s)
    asked = discovery or discovery_of(issuer)
    return TokenRules(issuer.issuer, audience, KeySource(asked.keys, issuer.issuer), longest_s)


def bearer_of(tokens: Tokens) -> Bearer:
    """What checks access tokens over DICOMweb."""
    from gateway.network.retrieve.dicomweb.bearer import Bearer  # brings pynetdicom: not for every caller

    return Bearer(tokens, rules_of(tokens, tokens.audience))


def provider_of(oidc: Oidc) -> Provider:
    """The page's side of logins."""
    asks = Fetcher(oidc.issuer, oidc.trust, oidc.timeout_s)
    discovery = Discovery(oidc.issuer, asks)
    secret = oidc.client_secret.resolve if oidc.client_secret is not None else None
    return Provider(oidc, discovery, rules_of(oidc, oidc.client_id, discovery, LOGIN_S), asks, secret)


def proofs_of(oidc: Oidc) -> Proofs:
    """What the worker knows people by who logged in at the page."""
    return Proofs(oidc, rules_of(oidc, oidc.client_id, None, LOGIN_S))
