"""What a recipient makes of a delivery that it accepted: copies, and what stands out."""

from collections.abc import Sequence
from dataclasses import dataclass

from clearinghouse.messages.deliveries import Copies, Ground


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement of one delivery.

    Attributes:
        paid: For each of its real records whether it is paid, that is no copy.
        copies: How many rows earlier committed sources hold, with a digest of the proofs.
        forfeits: Whether so much is copied that the deposit is lost.
        grounds: Statistics by which it stands out.
        notes: Both in words, without any value of a record.
    """

    paid: Sequence[bool]
    copies: Sequence[Copies] = ()
    forfeits: bool = False
    grounds: Sequence[Ground] = ()
    notes: Sequence[str] = ()
