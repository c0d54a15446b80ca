"""Bearer tokens for clients that only read: made by their owner, known here by hash.

`chk_<prefix>_<secret>`: the prefix finds the key and is no secret; the server stores the SHA-256 of
the whole token. The owner makes the token on its own machine and registers prefix and hash, so that
it is in no answer, journal or backup of the server. Such a token has 256 random bits, hence a fast
hash does: there is nothing to guess.

A token proves nothing to third parties and can be copied by whoever sees it, so it only reads.
"""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Literal, get_args

Scope = Literal[
    "prices:read", "requests:read", "sources:read", "receipts:read", "orgs:read", "log:read"
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

TOKEN_MARK = "chk_"  # noqa: S105  the beginning that all tokens share
_TOKEN = re.compile(r"chk_([0-9a-z]{12})_[A-Za-z0-9_-]{43}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def make_token() -> str:
    """A fresh token from the operating system's randomness."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"{TOKEN_MARK}{prefix}_{secret}"


def prefix_of(token: str) -> str | None:
    """The public beginning of a token, or None if it has not a token's form."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else found[1]


def token_digest(token: str) -> str:
    """SHA-256 of a token, in hex: what the server knows of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_matches(token: str, digest: str) -> bool:
    """Whether a token has this hash, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(token_digest(token), digest)
