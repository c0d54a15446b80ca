"""Committed nonces and seeds: nobody grinds the noise, not even two parties together.

Protocol section 2 (docs/protocol.md). The evaluator and the developer commit to a nonce each before
the key holder commits to its noise, and open both after the tests of section 3. The noise follows
from all three, so as long as one of the three keeps its secret until then, the other two cannot
choose it.

Guarantee: a commitment hides a random 16-byte nonce and opens to one nonce only.
Assumes: SHA-256 is collision resistant and hides 128 bits of entropy (random oracle).
"""

import hashlib
import secrets
from collections.abc import Sequence

from secure_eval.params import PROTOCOL
from secure_eval.prg import joined

__all__ = [
    "COMMITMENT_BYTES",
    "NONCE_BYTES",
    "NO_DEVELOPER",
    "check_nonces",
    "new_nonce",
    "nonce_commitment",
    "seed_commitment",
    "seed_version",
]

NONCE_BYTES = 16
COMMITMENT_BYTES = 32
NO_DEVELOPER = bytes(NONCE_BYTES)
"""Stands in for a developer's nonce: a target has none."""


def new_nonce() -> bytes:
    """Return a nonce from the operating system's randomness."""
    return secrets.token_bytes(NONCE_BYTES)


def nonce_commitment(nonce: bytes) -> bytes:
    """Return the commitment (32 bytes) to a nonce.

    Raises:
        ValueError: a nonce of another length.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"nonce: expected {NONCE_BYTES} bytes, got {len(nonce)}")
    return hashlib.sha256(joined("secure_eval nonce 1", nonce)).digest()


def seed_commitment(seed: bytes, version: int = PROTOCOL) -> str:
    """Return the commitment (hexadecimal SHA-256) to an evaluator's seed and to the protocol.

    It is logged before a run, so the version of the messages is fixed with the seed.
    """
    named = (f"secure_eval evaluator seed {version}", seed)
    return hashlib.sha256(joined(*named)).hexdigest()


def seed_version(seed: bytes, commitment: str) -> int | None:
    """Return the version of the protocol under which a seed opens a commitment, None for none."""
    versions = range(PROTOCOL, 0, -1)
    return next((v for v in versions if seed_commitment(seed, v) == commitment), None)


def check_nonces(nonces: Sequence[bytes], commitments: Sequence[bytes]) -> None:
    """Check that nonces open the commitments that were given before.

    Raises:
        ValueError: another number or length, or a nonce that opens nothing.
    """
    if len(nonces) != len(commitments) or any(len(nonce) != NONCE_BYTES for nonce in nonces):
        raise ValueError(f"nonces: expected {len(commitments)} of {NONCE_BYTES} bytes each")
    for place, (nonce, commitment) in enumerate(zip(nonces, commitments, strict=True)):
        if nonce_commitment(nonce) != commitment:
            raise ValueError(f"nonces: number {place} does not open its commitment")
