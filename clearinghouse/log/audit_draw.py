"""Which runs are drawn for a replay after the fact: known to nobody before the hospital signs.

The draw hashes the hospital's signature under the score statement, so whoever could deviate in a
run cannot know it while the run lasts, and anyone with the receipt computes it again.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from clearinghouse.errors import VerificationError
from clearinghouse.log.claim import ScoreClaim
from clearinghouse.signing import b64decode_strict

__all__ = ["DRAW_SHARE_MICRO", "drawn", "is_drawn"]

DRAW_SHARE_MICRO = 50_000
"""One run in twenty, in millionths."""

_TAG = b"clearinghouse audit draw v1"


def drawn(signature: bytes, share_micro: int = DRAW_SHARE_MICRO) -> bool:
    """Whether SHA-256(tag || signature), as a fraction of 2^256, is below the share."""
    number = int.from_bytes(hashlib.sha256(_TAG + signature).digest(), "big")
    return number * 1_000_000 < share_micro << 256


def is_drawn(claim: ScoreClaim, envelope: Mapping[str, Any]) -> bool:
    """Whether a receipt's run is drawn.

    Args:
        claim: The receipt's verified claim.
        envelope: The signed statement it came from.

    Raises:
        VerificationError: The hospital has not signed it.
    """
    keys = {signer.key for signer in claim.signers if signer.role == "hospital"}
    found = [item["sig"] for item in envelope["signatures"] if item["keyid"] in keys]
    if len(found) != 1:
        raise VerificationError("the draw needs the signature of the hospital")
    return drawn(b64decode_strict(found[0]))
