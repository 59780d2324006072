"""The public keys of an issuer (RFC 7517), from itself: fetched anew when a token names one that is unknown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from gateway.errors import ConfigError, GatewayError, UnreachableError

AnyKey = RSAKey | ECKey | OKPKey
MOST = 50  # keys of one issuer
FAILED_S = 5.0  # an issuer that did not answer is left alone for so long
AGAIN_S = 60.0  # an unknown key asks the issuer no more often than this ...
FRESH_S = 3600.0  # ... and keys that the issuer withdrew are believed no longer than this


class Keys(Protocol):
    """Where the keys of an issuer come from."""

    def of(self, key_id: str | None) -> list[AnyKey]:
        """The keys that may have signed a token: of that name, or all where the token names none."""


def read_keys(data: bytes, where: str) -> list[AnyKey]:
    """The public signing keys of a JWK set; kinds that are not known are passed over, and symmetric ones never taken.

    Raises
    ------
    ConfigError
        ``keys-unreadable``: it is no JWK set, or none of its keys can be used.
    """
    try:
        told = json.loads(data)
        entries = told["keys"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError("keys-unreadable", f"{where} is no JWK set", 'it begins with {"keys": [') from None
    found = [key for entry in entries[:MOST] if (key := _key(entry)) is not None]
    if not found:
        message = f"{where} holds no public key that signatures could be checked by"
        raise ConfigError("keys-unreadable", message, "RSA of 2048 bits or more, EC, or Ed25519")
    return found


def _key(entry: Any) -> AnyKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        key = import_key({name: value for name, value in entry.items() if name not in ("d", "key_ops")})
        is_short = isinstance(key, RSAKey) and key.public_key.key_size < 2048
    except (JoseError, ValueError, TypeError, KeyError):  # KeyError: a curve that is not known, as brainpool's
        return None
    return None if is_short or not isinstance(key, AnyKey) else key


class KeySource:
    """Keys behind a function that fetches them. Safe for any number of threads.

    Parameters
    ----------
    fetch
        The JWK set; GatewayError where it cannot be had.
    where
        How errors name it.
    """

    def __init__(self, fetch: Callable[[], bytes], where: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._where = where
        self._clock = clock
        self._asking = threading.Lock()  # one asks at a time; who knows the key already does not wait for it
        self._kept: tuple[list[AnyKey], float] = ([], -FRESH_S)  # the keys, and when they came
        self._tried = -AGAIN_S
        self._failed: GatewayError | None = None

    def of(self, key_id: str | None) -> list[AnyKey]:
        """See `Keys`; GatewayError where no key could be had at all."""
        if found := _named(self._fresh(), key_id):
            return found
        with self._asking:
            keys = self._fresh()
            wait_s = AGAIN_S if keys else FAILED_S
            if not _named(keys, key_id) and self._clock() - self._tried >= wait_s:
                keys = self._ask(keys)
            if not keys:
                raise self._failed or UnreachableError("issuer-unreachable", f"{self._where}: no keys yet")
            return _named(keys, key_id)

    def _fresh(self) -> list[AnyKey]:
        """The keys that the issuer still vouches for."""
        keys, came = self._kept
        return keys if self._clock() - came < FRESH_S else []

    def _ask(self, before: list[AnyKey]) -> list[AnyKey]:
        """The issuer's keys now, or those from before where it does not give them."""
        self._failed = None
        try:
            keys = read_keys(self._fetch(), self._where)
        except GatewayError as error:
            self._failed = error
            return before
        else:
            self._kept = keys, self._clock()
            return keys
        finally:
            self._tried = self._clock()  # after it: else those who waited would each ask a slow issuer in turn


def _named(keys: list[AnyKey], key_id: str | None) -> list[AnyKey]:
    return [key for key in keys if key_id is None or key.kid == key_id]
