"""Ask commitments: an ask is fixed before anybody, the server included, has seen one."""

import hashlib
import hmac

SALT_BYTES = 32


def ask_commitment(salt: bytes, request_id: str, source_id: str, ask_micro: int) -> str:
    """SHA-256 of "clearinghouse ask v1" || salt || request id || source id || ask, in hex.

    Every part but the last has a fixed length, so no two asks share the bytes that are hashed.

    Args:
        salt: 32 random bytes; without them no ask can be told from the commitment.
        request_id: The request the ask is for; it cannot be used in another.
        source_id: Whose ask it is; a copied commitment opens for nobody.
        ask_micro: Micro-money per record, at least 0; hashed in decimal digits.

    Raises:
        ValueError: The salt is not 32 bytes or the ask is negative.
    """
    if len(salt) != SALT_BYTES or ask_micro < 0:
        raise ValueError(
            f"an ask commitment needs a {SALT_BYTES}-byte salt and an ask of 0 or more"
        )
    text = f"{request_id}{source_id}{ask_micro}".encode("ascii")
    return hashlib.sha256(b"clearinghouse ask v1" + salt + text).hexdigest()


def opens_ask(published: str, salt: bytes, request_id: str, source_id: str, ask_micro: int) -> bool:
    """Whether a revealed ask is the one that was committed."""
    if len(salt) != SALT_BYTES or ask_micro < 0:
        return False
    found = ask_commitment(salt, request_id, source_id, ask_micro)
    return hmac.compare_digest(found, published)
