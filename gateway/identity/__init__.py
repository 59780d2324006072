"""Who somebody is by the word of the site's identity provider: signed tokens are checked here, and nothing is opened.

Knows no network: whoever puts a role together hands in what fetches keys and answers from the one configured issuer.
"""

from gateway.identity.jwks import Keys, KeySource
from gateway.identity.tokens import LONGEST, Claims, TokenError, TokenRules, verify

__all__ = ["LONGEST", "Claims", "KeySource", "Keys", "TokenError", "TokenRules", "verify"]
