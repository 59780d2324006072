"""Access tokens besides the certificate (RFC 6750), each bound to that very certificate (RFC 8705 3).

The certificate says which workstation asks, as ever. Where the site wants it, a token of its identity provider says
besides that somebody may now; one that was carried off opens nothing from another machine.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from gateway.config.identity import Tokens
from gateway.errors import ConfigError, GatewayError
from gateway.identity import LONGEST, Claims, TokenError, TokenRules, verify
from gateway.network.http import Answered
from gateway.network.retrieve.dicomweb.targets import Kind
from gateway.network.tls import PeerCertificate

_TOKEN = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")  # RFC 9110 11.1: no matter the case
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,95}")


class TokenRefused(Exception):
    """A request that shows no token, or none that counts: `reason` for the audit, `answer` for the caller."""

    def __init__(self, reason: str, answer: Answered) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class Bearer:
    """Checks the token of each request.

    Parameters
    ----------
    rules
        Issuer, audience and keys.
    """

    def __init__(self, tokens: Tokens, rules: TokenRules) -> None:
        self._tokens = tokens
        self._rules = rules

    def check(self, authorization: str, certificate: PeerCertificate | None, kind: Kind) -> str:
        """Whose token it is, "" where it does not say so in a word.

        Raises
        ------
        TokenRefused
            ``token-missing``, ``token-malformed``, ``token-not-bound``, ``token-of-other-certificate``,
            ``token-scope``, ``token-keys-unavailable``, or as `gateway.identity.verify`.
        """
        if not authorization:  # RFC 6750 3.1: no error code for who has not tried
            raise TokenRefused("token-missing", _refusal(401, "a bearer token is needed"))
        found = _TOKEN.fullmatch(authorization) if len(authorization) <= LONGEST + 16 else None
        if found is None:
            raise TokenRefused("token-malformed", _refusal(401, "that is no bearer token", "invalid_token"))
        try:
            claims = verify(found[1], self._rules)
        except TokenError as error:
            raise TokenRefused(error.code, _refusal(401, error.message, "invalid_token")) from None
        except (GatewayError, ConfigError):
            later = Answered(503, "the keys of the token's issuer cannot be had now", (("retry-after", "30"),))
            raise TokenRefused("token-keys-unavailable", later) from None
        self._check_binding(claims, certificate)
        scope = self._tokens.search_scope if kind == "search" else self._tokens.retrieve_scope
        if scope not in _scopes(claims):
            answer = _refusal(403, "the token's scope does not reach so far", "insufficient_scope", scope)
            raise TokenRefused("token-scope", answer)
        subject = claims.get("sub")
        return subject if isinstance(subject, str) and _SUBJECT.fullmatch(subject) else ""

    @staticmethod
    def _check_binding(claims: Claims, certificate: PeerCertificate | None) -> None:
        """RFC 8705 3.1: the SHA-256 of the certificate that this connection was made with."""
        confirmation = claims.get("cnf")
        bound = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
        if not isinstance(bound, str) or not bound.isascii():
            answer = _refusal(401, "the token is bound to no certificate", "invalid_token")
            raise TokenRefused("token-not-bound", answer)
        own = thumbprint(certificate.der) if certificate is not None else ""
        if not own or not hmac.compare_digest(own, bound):
            answer = _refusal(401, "the token is bound to another certificate", "invalid_token")
            raise TokenRefused("token-of-other-certificate", answer)


def thumbprint(der: bytes) -> str:
    """``x5t#S256`` of a certificate (RFC 8705 3.1): base64url of its SHA-256, without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def _scopes(claims: Claims) -> set[str]:
    """``scope`` as RFC 8693 4.2 has it, or ``scp`` as some providers call it, a list or text."""
    found: set[str] = set()
    for value in (claims.get("scope"), claims.get("scp")):
        if isinstance(value, str):
            found |= set(value.split(" "))
        elif isinstance(value, list):
            found |= {one for one in value if isinstance(one, str)}
    return found


def _refusal(status: int, text: str, error: str = "", scope: str = "") -> Answered:
    parts = ['realm="originals"']
    if error:
        parts += [f'error="{error}"', f'error_description="{text}"']
    if scope:
        parts.append(f'scope="{scope}"')
    return Answered(status, text, (("www-authenticate", "Bearer " + ", ".join(parts)),))
