"""JSON Web Tokens of one issuer (RFC 7519, RFC 8725): signature, issuer, audience and time, then the claims."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from gateway.errors import GatewayError
from gateway.identity.jwks import AnyKey, Keys

# Asymmetric ones only: with HS256 whoever knows the public key could sign, and "none" is no signature (RFC 8725 3.1).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
LONGEST = 12_000  # bytes of a token
SKEW_S = 60.0  # by which clocks may differ
_MOST_KEYS = 8  # that are tried for a token that names none

Claims = Mapping[str, Any]


class TokenError(GatewayError):
    """A token that proves nothing; `code` says why, and no text holds anything of the token."""


@dataclass(frozen=True)
class TokenRules:
    """What a token has to be.

    Attributes
    ----------
    issuer, audience
        Exactly as the claims ``iss`` and ``aud`` have to say.
    keys
        The issuer's.
    longest_s
        A token is believed for so many seconds from when it was issued, whatever it says itself.
    """

    issuer: str
    audience: str
    keys: Keys
    longest_s: float = 86_400.0


def verify(token: str, rules: TokenRules, now: float | None = None, *, of_login: bool = False) -> Claims:
    """The claims of a token that keeps to the rules.

    Parameters
    ----------
    of_login
        It was shown at a login, and proves now who logged in then: `longest_s` after its issue counts, and not when it
        expires, which providers set to minutes.

    Raises
    ------
    TokenError
        ``token-malformed``, ``token-algorithm``, ``token-key-unknown``, ``token-signature``, ``token-issuer``,
        ``token-audience``, ``token-expired``, ``token-not-yet``.
    GatewayError
        The keys cannot be had.
    """
    now = time.time() if now is None else now
    header = _header(token)
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise TokenError("token-algorithm", "the token is signed in no way that is accepted")
    if key_id is not None and not isinstance(key_id, str):
        raise TokenError("token-malformed", "the token names its key by no text")
    keys = [key for key in rules.keys.of(key_id) if _fits(key, algorithm)][:_MOST_KEYS]
    if not keys:
        raise TokenError("token-key-unknown", "the issuer has no key of the name that the token gives")
    claims = _claims(token, keys, algorithm)
    _check(claims, rules, now, of_login)
    return claims


def _header(token: str) -> dict[str, Any]:
    if len(token) > LONGEST or not token.isascii() or token.count(".") != 2:
        raise TokenError("token-malformed", "that is no signed token")
    try:
        part = token.partition(".")[0]
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise TokenError("token-malformed", "the head of the token cannot be read")
    return header


def _fits(key: AnyKey, algorithm: str) -> bool:
    """Whether that key signs in that way: a key of one kind is never tried for another's (RFC 8725 3.1)."""
    said = key.as_dict(private=False).get("alg")
    kind = {"R": "RSA", "P": "RSA"}.get(algorithm[0], "EC" if algorithm.startswith("ES") else "OKP")
    return key.key_type == kind and said in (None, algorithm)


def _claims(token: str, keys: list[AnyKey], algorithm: str) -> Claims:
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = LONGEST  # certificates stand in the heads of some
    for key in keys:
        try:
            return jwt.decode(token, key, algorithms=[algorithm], registry=registry).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            continue
    raise TokenError("token-signature", "the signature of the token is not good")


def _check(claims: Claims, rules: TokenRules, now: float, of_login: bool) -> None:
    if claims.get("iss") != rules.issuer:
        raise TokenError("token-issuer", "the token is another issuer's")
    audience = claims.get("aud")
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError("token-audience", "the token is meant for somebody else")
    begins, ends = _moment(claims, "nbf"), _moment(claims, "exp")
    issued = _moment(claims, "iat")
    if ends is None or issued is None:
        raise TokenError("token-malformed", "the token does not say when it was issued, or when it expires")
    if max(begins or 0.0, issued) > now + SKEW_S:
        raise TokenError("token-not-yet", "the token is not valid yet: do the clocks agree?")
    if now > issued + rules.longest_s + SKEW_S or (not of_login and now > ends + SKEW_S):
        raise TokenError("token-expired", "the token has expired")


def _moment(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise TokenError("token-malformed", f"the token's {name} is no time")
    return float(value)
