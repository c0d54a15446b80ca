"""SEAL objects from our own residues and back; headers always come from local templates.

SEAL saves and loads through file paths only. An anonymous memory file serves where the system has
one (Linux), else a file in a private folder (mode 0700). Only ciphertexts, plaintext polynomials
and public keys pass through it; a secret key never does.
"""

import atexit
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
import zstandard
from numpy.typing import ArrayLike, NDArray

from secure_eval.params import PARAMETERS

__all__ = ["Seal", "seal"]

Residues = NDArray[np.uint64]
Ciphertext = Any
Plaintext = Any

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
_COUNT = struct.Struct("<Q")
_BLAKE2XB = 1
_PLAIN_HEAD = struct.Struct("<32sQd")
#: the largest object of our own that is read back, relinearisation keys, has 2.6 MB
_MOST_SAVED = 1 << 22

Buffer = bytes | memoryview


class _MemoryFile:
    """A path that SEAL can write and read, backed by memory where possible."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").exists():
            self._fd = os.memfd_create("secure_eval", os.MFD_CLOEXEC)
            self.path = f"/proc/self/fd/{self._fd}"
        else:
            folder = tempfile.mkdtemp(prefix="secure_eval-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            self.path = str(Path(folder) / "object")
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def read(self) -> bytes:
        """Return the content."""
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def write(self, *parts: Buffer) -> None:
        """Replace the content by some parts, without putting them together before."""
        place = 0
        for part in parts:
            view = memoryview(part).cast("B")
            done = 0
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], place + done)
            place += len(view)
        os.ftruncate(self._fd, place)


class Seal:
    """The SEAL context of `PARAMETERS` with the tools that need no key.

    A level is named by its number of primes: 4 for a fresh ciphertext, 2 for what is opened.
    One memory file serves all calls of the process, one at a time under a lock.
    """

    def __init__(self) -> None:
        degree, primes = PARAMETERS.degree, PARAMETERS.primes
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
        parameters.set_poly_modulus_degree(degree)
        level = sealapi.SEC_LEVEL_TYPE.TC128
        modulus = sealapi.CoeffModulus.BFVDefault(degree, level)
        if tuple(prime.value() for prime in modulus) != primes:
            raise ValueError("parameters: this SEAL has another default coefficient modulus")
        parameters.set_coeff_modulus(modulus)
        parameters.set_plain_modulus(sealapi.Modulus(PARAMETERS.plain_modulus))
        self.context = sealapi.SEALContext(parameters, True, level)
        self.evaluator = sealapi.Evaluator(self.context)
        self.encoder = sealapi.BatchEncoder(self.context)
        self._file = _MemoryFile()
        self._lock = threading.Lock()
        self.parms_ids: dict[int, list[int]] = {len(primes): self.context.key_parms_id()}
        data = self.context.first_context_data()
        while data is not None:
            self.parms_ids[data.chain_index() + 1] = data.parms_id()
            data = data.next_context_data()
        sealapi.Plaintext("1").save(self._file.path)
        _, _, self._major, self._minor, _, _, _ = _HEADER.unpack_from(self._file.read())

    # -- SEAL's own byte format, written and read locally only

    def _header(self, size: int) -> bytes:
        size += _HEADER.size
        return _HEADER.pack(_MAGIC, _HEADER.size, self._major, self._minor, 0, 0, size)

    def _headed(self, body: bytes) -> bytes:
        return self._header(len(body)) + body

    def _ciphertext_head(self, polynomials: int, primes: int, ntt: bool) -> bytes:
        ident = struct.pack("<4Q", *self.parms_ids[primes])
        return _CIPHERTEXT.pack(ident, ntt, polynomials, PARAMETERS.degree, primes, 1.0, 1)

    def _ciphertext_parts(self, head: bytes, data: Residues, tail: bytes) -> tuple[Buffer, ...]:
        """Return SEAL's serialisation of a ciphertext: what is before residues, these, the rest."""
        inner = _HEADER.size + _COUNT.size + data.nbytes
        before = self._header(len(head) + inner + len(tail)) + head
        count = self._header(_COUNT.size + data.nbytes) + _COUNT.pack(data.size)
        return before + count, data.data, tail

    def ciphertext_bytes(self, residues: Residues, ntt: bool) -> bytes:
        """Return SEAL's serialisation of residues (polynomials, primes, N)."""
        polynomials, primes, _ = residues.shape
        flat = np.ascontiguousarray(residues, np.uint64)
        head = self._ciphertext_head(polynomials, primes, ntt)
        return b"".join(self._ciphertext_parts(head, flat, b""))

    def load_into(self, target: Any, *parts: Buffer) -> Any:
        """Load locally built bytes, given in parts, into a SEAL object and return it."""
        with self._lock:
            self._file.write(*parts)
            target.load(self.context, self._file.path)
        return target

    def saved_body(self, save: Callable[[str], None]) -> bytes:
        """Return what an object of our own saves, decompressed, without its outer header."""
        with self._lock:
            save(self._file.path)
            data = self._file.read()
        _, _, _, _, compression, _, size = _HEADER.unpack_from(data)
        body = memoryview(data)[_HEADER.size : size]
        if compression == 2:
            return zstandard.ZstdDecompressor().decompress(body, max_output_size=_MOST_SAVED)
        if compression == 0:
            return bytes(body)
        raise ValueError(f"SEAL: expected compression 0 or 2, got {compression}")

    # -- ciphertexts

    def ciphertext(self, residues: Residues, ntt: bool = False) -> Ciphertext:
        """Return the ciphertext with checked residues (2, primes, N)."""
        polynomials, primes, _ = residues.shape
        flat = np.ascontiguousarray(residues, np.uint64)
        head = self._ciphertext_head(polynomials, primes, ntt)
        return self.load_into(sealapi.Ciphertext(), *self._ciphertext_parts(head, flat, b""))

    def seeded_ciphertext(self, first: Residues, seed: bytes) -> Ciphertext:
        """Return the ciphertext with first polynomial (primes, N) and the second from a seed."""
        flat = np.ascontiguousarray(first, np.uint64)
        generator = self._headed(bytes([_BLAKE2XB]) + seed)
        head = self._ciphertext_head(2, len(first), ntt=False)
        parts = self._ciphertext_parts(head, flat, generator)
        return self.load_into(sealapi.Ciphertext(), *parts)

    def residues(self, ciphertext: Ciphertext) -> Residues:
        """Return the residues (polynomials, primes, N) of a ciphertext of our own."""
        body = self.saved_body(ciphertext.save)
        _, _, polynomials, degree, primes, _, _ = _CIPHERTEXT.unpack_from(body)
        start = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
        flat = np.frombuffer(body, np.uint64, polynomials * degree * primes, start)
        return flat.reshape(polynomials, primes, degree)

    def seeded_parts(self, saveable: Any) -> tuple[Residues, bytes]:
        """Return first polynomial (primes, N) and seed of a fresh symmetric encryption."""
        body = self.saved_body(saveable.save)
        _, _, _, degree, primes, _, _ = _CIPHERTEXT.unpack_from(body)
        start = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
        first = np.frombuffer(body, np.uint64, degree * primes, start).reshape(primes, degree)
        tail = body[start + first.nbytes :]
        if len(tail) != _HEADER.size + 1 + 64 or tail[_HEADER.size] != _BLAKE2XB:
            raise ValueError("SEAL: expected a ciphertext with a 64-byte Blake2xb seed")
        return first, tail[_HEADER.size + 1 :]

    def relin_key_bytes(self, keys: Residues) -> bytes:
        """Return SEAL's serialisation of relinearisation keys (digits, 2, primes, N)."""
        ident = struct.pack("<4Q", *self.parms_ids[len(PARAMETERS.primes)])
        parts = [ident, struct.pack("<QQ", 1, len(keys))]
        return self._headed(b"".join(parts + [self.ciphertext_bytes(k, ntt=True) for k in keys]))

    # -- plaintexts

    def encoded(self, slots: ArrayLike) -> Plaintext:
        """Return the plaintext with integers (N,) mod p in its slots."""
        values = np.asarray(slots, np.int64) % PARAMETERS.plain_modulus
        plain = sealapi.Plaintext()
        self.encoder.encode(values.tolist(), plain)
        return plain

    def polynomial(self, coefficients: ArrayLike) -> Plaintext:
        """Return the plaintext with integers (N,) mod p as its coefficients."""
        values = np.asarray(coefficients, np.int64) % PARAMETERS.plain_modulus
        data = np.ascontiguousarray(values, np.uint64).tobytes()
        inner = self._headed(_COUNT.pack(len(values)) + data)
        head = _PLAIN_HEAD.pack(bytes(32), len(values), 1.0)
        return self.load_into(sealapi.Plaintext(), self._headed(head + inner))

    def plain_residues(self, residues: Residues) -> Plaintext:
        """Return a factor in NTT form from residues (primes, N) of our own."""
        primes, degree = residues.shape
        data = np.ascontiguousarray(residues, np.uint64).tobytes()
        inner = self._headed(_COUNT.pack(primes * degree) + data)
        ident = struct.pack("<4Q", *self.parms_ids[primes])
        head = _PLAIN_HEAD.pack(ident, primes * degree, 1.0)
        return self.load_into(sealapi.Plaintext(), self._headed(head + inner))

    def coefficients(self, plain: Plaintext) -> NDArray[np.uint64]:
        """Return the coefficients (N,) of a plaintext that is not in NTT form."""
        body = self.saved_body(plain.save)
        _, count, _ = _PLAIN_HEAD.unpack_from(body)
        start = _PLAIN_HEAD.size + _HEADER.size + _COUNT.size
        result = np.zeros(PARAMETERS.degree, np.uint64)
        result[:count] = np.frombuffer(body, np.uint64, count, start)
        return result

    def constant(self, value: int) -> Plaintext:
        """Return the plaintext with one integer mod p in every slot."""
        return sealapi.Plaintext(f"{int(value) % PARAMETERS.plain_modulus:x}")

    # -- operations with a new result

    def ntt(self, ciphertext: Ciphertext) -> Ciphertext:
        """Return the ciphertext in NTT form."""
        result = sealapi.Ciphertext()
        self.evaluator.transform_to_ntt(ciphertext, result)
        return result

    def plain_ntt(self, plain: Plaintext, primes: int) -> Plaintext:
        """Return the plaintext in NTT form at a level."""
        result = sealapi.Plaintext()
        self.evaluator.transform_to_ntt(plain, self.parms_ids[primes], result)
        return result

    def times_plain(self, ciphertext: Ciphertext, plain: Plaintext) -> Ciphertext:
        """Return ciphertext times plaintext, both in NTT form or the plaintext constant."""
        result = sealapi.Ciphertext()
        self.evaluator.multiply_plain(ciphertext, plain, result)
        return result

    def times(self, left: Ciphertext, right: Ciphertext) -> Ciphertext:
        """Return the product of two ciphertexts as three polynomials."""
        result = sealapi.Ciphertext()
        self.evaluator.multiply(left, right, result)
        return result

    def squared(self, ciphertext: Ciphertext) -> Ciphertext:
        """Return the square of a ciphertext as three polynomials."""
        result = sealapi.Ciphertext()
        self.evaluator.square(ciphertext, result)
        return result

    def plus(self, left: Ciphertext, right: Ciphertext) -> Ciphertext:
        """Return the sum of two ciphertexts."""
        result = sealapi.Ciphertext()
        self.evaluator.add(left, right, result)
        return result

    def minus(self, left: Ciphertext, right: Ciphertext) -> Ciphertext:
        """Return the difference of two ciphertexts."""
        result = sealapi.Ciphertext()
        self.evaluator.sub(left, right, result)
        return result

    def copied(self, ciphertext: Ciphertext) -> Ciphertext:
        """Return a copy."""
        result = sealapi.Ciphertext()
        self.evaluator.mod_switch_to(ciphertext, ciphertext.parms_id(), result)
        return result

    def relinearised(self, ciphertext: Ciphertext, relin_keys: Any) -> Ciphertext:
        """Return a new ciphertext of two polynomials with the message of one of up to three."""
        result = sealapi.Ciphertext()
        self.evaluator.relinearize(ciphertext, relin_keys, result)
        return result

    def switched(self, ciphertext: Ciphertext, primes: int) -> Ciphertext:
        """Return the ciphertext at a lower level."""
        result = sealapi.Ciphertext()
        self.evaluator.mod_switch_to(ciphertext, self.parms_ids[primes], result)
        return result

    def accumulate(self, total: Ciphertext | None, term: Ciphertext) -> Ciphertext:
        """Return total + term, reusing total; term itself where there is no total yet."""
        if total is None:
            return term
        self.evaluator.add_inplace(total, term)
        return total

    def add_scaled(
        self, total: Ciphertext | None, ciphertext: Ciphertext, weight: int
    ) -> Ciphertext | None:
        """Return total + weight * ciphertext for an integer weight.

        The magnitude of the weight centred mod p is multiplied, its sign decides between adding
        and subtracting: SEAL itself would multiply a negative weight as p - |weight| and lose up
        to 20 bits of budget.
        """
        p = PARAMETERS.plain_modulus
        centred = (int(weight) + p // 2) % p - p // 2
        if centred == 0:
            return total
        term = self.times_plain(ciphertext, self.constant(abs(centred)))
        if centred < 0:
            if total is None:
                self.evaluator.negate_inplace(term)
            else:
                self.evaluator.sub_inplace(total, term)
                return total
        return self.accumulate(total, term)


@cache
def seal() -> Seal:
    """Return the one SEAL context of this process."""
    return Seal()
