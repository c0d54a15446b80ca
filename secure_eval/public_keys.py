"""The public and relinearisation keys as checked residues."""

from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.packing import pack, packed_size, unpack
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

__all__ = ["PublicKeys"]

Residues = NDArray[np.uint64]

_PRIMES = PARAMETERS.primes
_DIGITS = len(PARAMETERS.data_primes)
_KEY_BYTES = packed_size(2, len(_PRIMES))


class PublicKeys:
    """What the evaluator needs to compute: no secret, and no rotation keys.

    Attributes:
        public_key: residues (2, 5, N) in NTT form.
        relinearisation: residues (4, 2, 5, N) in NTT form.
    """

    def __init__(self, public_key: Residues, relinearisation: Residues) -> None:
        self.public_key = public_key
        self.relinearisation = relinearisation
        self._relin_object: Any = None

    @classmethod
    def from_seal(cls, public_key: Any, relin_keys: Any) -> "PublicKeys":
        """Take SEAL's own key objects."""
        tools = seal()
        first = tools.residues(public_key)
        return cls(first, np.stack([tools.residues(key) for key in relin_keys.data(0)]))

    def to_bytes(self) -> bytes:
        """Return the message, about 2.2 MB."""
        keys = [self.public_key, *self.relinearisation]
        version = PARAMETERS.version.encode()
        return framing.encode(Kind.PUBLIC_KEYS, [version, *(pack(key) for key in keys)])

    @classmethod
    def from_bytes(cls, data: bytes) -> "PublicKeys":
        """Read the message strictly.

        Raises:
            ValueError: wrong shape, another parameter version, or a residue not below its prime.
        """
        version = PARAMETERS.version.encode()
        lengths = [len(version), *[_KEY_BYTES] * (1 + _DIGITS)]
        parts = framing.decode(data, Kind.PUBLIC_KEYS, lengths)
        if bytes(parts[0]) != version:
            raise ValueError(f"public keys: expected parameters {PARAMETERS.version}")
        keys = [
            unpack(part, 2, _PRIMES, f"public keys, part {index}")
            for index, part in enumerate(parts[1:], start=1)
        ]
        return cls(keys[0], np.stack(keys[1:]))

    def seal_relin_keys(self) -> Any:
        """Return SEAL's relinearisation keys, built once."""
        if self._relin_object is None:
            data = seal().relin_key_bytes(self.relinearisation)
            self._relin_object = seal().load_into(sealapi.RelinKeys(), data)
        return self._relin_object

    def seal_public_key(self) -> Any:
        """Return SEAL's public key."""
        data = seal().ciphertext_bytes(self.public_key, ntt=True)
        return seal().load_into(sealapi.PublicKey(), data)
