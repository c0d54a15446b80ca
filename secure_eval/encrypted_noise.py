"""The key holder's noise as a ciphertext that an arbiter rebuilds without its key (section 5)."""

import numpy as np
from numpy.typing import NDArray

from secure_eval.opening import noise_coefficients
from secure_eval.packing import pack
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.sampler import ZeroSampler

__all__ = ["encrypted_noise"]

Integers = NDArray[np.int64]

_P = PARAMETERS.plain_modulus


def encrypted_noise(
    public_key: NDArray[np.uint64], key: bytes, run_id: str, noise: Integers
) -> bytes:
    """Return noise (cells,) encrypted under the public key with randomness from the noise key.

    An arbiter who is given the noise key of one run rebuilds these bytes without the secret key.
    """
    primes = PARAMETERS.data_primes
    modulus = int(np.prod([int(prime) for prime in primes], dtype=object))
    zeros = ZeroSampler(public_key, Prg("noise encryption", key, run_id))
    residues = zeros.full(len(primes), "noise")
    for cell, coefficient in enumerate(noise_coefficients(noise).tolist()):
        lifted = (modulus * coefficient + _P // 2) // _P
        for row, prime in enumerate(primes):
            residues[0, row, cell] = (int(residues[0, row, cell]) + lifted) % prime
    return pack(residues)
