"""The one set of encryption parameters, frozen and versioned.

BFV over Z[X]/(X^8192 + 1) with SEAL's default 128-bit coefficient modulus for this degree (218
bits: homomorphicencryption.org standard, table 1) and a 20-bit prime plain modulus p = 1032193 with
p - 1 = 2^14 * 3^2 * 7, so that 8192 slots exist and every grid of 8, 16, 32 or 64 equal bins fits.
A valset names the version; bytes under any other version are refused.
"""

from dataclasses import dataclass

__all__ = ["PARAMETERS", "PROTOCOL", "Parameters"]

PROTOCOL = 2
"""Version of the messages: raised with any change of the bytes that follow from seed and inputs, so
that a replay tells a run of another version from a forged one. 1: the weights of all blocks' tests
were one stream; 2: each block has its own."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Encryption parameters.

    Attributes:
        version: name that a valset and every layout carry.
        degree: ring degree N, also the number of slots and of rows in a full block.
        plain_modulus: the prime p; a slot holds an integer mod p.
        primes: coefficient primes; the last is the key-switching prime, the others carry data.
        opening_primes: what reaches the key holder is switched down to this many primes.
        flood_bits: noise added before anything reaches the key holder is uniform in +-2^flood_bits.
            At two primes a budget of 66 bits less the result's own noise is left; measured on
            every kind of model, for scores, shares, openings and zero tests: noise of 2^11 at most,
            hidden to 47 bits in each flooded coefficient. At least 44 are promised. 7 bits of
            budget remain after flooding.
        minimum_budget: the key holder refuses to decrypt with fewer bits of noise budget left.
    """

    version: str
    degree: int
    plain_modulus: int
    primes: tuple[int, ...]
    opening_primes: int
    flood_bits: int
    minimum_budget: int

    @property
    def data_primes(self) -> tuple[int, ...]:
        """Primes of a fresh ciphertext."""
        return self.primes[:-1]


PARAMETERS = Parameters(
    version="bfv-8192-1032193-1",
    degree=8192,
    plain_modulus=1_032_193,
    primes=(0x7FFFFFD8001, 0x7FFFFFC8001, 0xFFFFFFFC001, 0xFFFFFF6C001, 0xFFFFFEBC001),
    opening_primes=2,
    flood_bits=58,
    minimum_budget=4,
)
