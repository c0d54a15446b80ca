"""What every wire message shares: frozen, strict, no unknown keys, bounded sizes.

Ciphertexts never travel inside JSON: they are blobs, named by the SHA-256 of their bytes, sent by a
streamed PUT and referred to here by that hash.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """Base of every wire message."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hex: a blob's name, a digest or a commitment."""

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){1,64}$")]
"""Up to 64 bytes in lower-case hex: nonces, salts, seeds."""

Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=262_144)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Id = Annotated[str, Field(pattern=r"^[a-z]{3}_[0-9a-z]{20}$")]
Micro = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A non-negative amount in millionths: of the currency, of epsilon, or of a share."""

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
SignedCount = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
"""A count after discrete noise: it may be negative."""

Rung = Annotated[list[Micro], Field(min_length=3, max_length=3)]
"""Place, price in micro-money, units: so many units of the place have that price."""

Level = Annotated[list[Name], Field(max_length=16)]
"""The columns of one strata level; the empty list is the root, one cell."""
