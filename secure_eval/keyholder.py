"""The secret side: keys, sealing of rows, decryption. Never loaded by a server.

Guarantee: the secret key leaves this object only into its own key file (mode 0600).
Assumes: the operating system's randomness (SEAL seeds itself from it, `secrets` here); the machine
    belongs to the owner of the rows.
"""

import hashlib
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import ArrayLike, NDArray

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.layout import Layout
from secure_eval.packing import OPENING_BYTES, pack, unpack
from secure_eval.params import PARAMETERS
from secure_eval.public_keys import PublicKeys
from secure_eval.sealio import seal
from secure_eval.strips import STRIP_ROWS, repeated, strip

__all__ = ["POOL_SIZE", "KeyHolder", "RefusedAfterDecryptionError", "SealedSet"]

Integers = NDArray[np.int64]

_P = PARAMETERS.plain_modulus
_N = PARAMETERS.degree
_LEVEL = PARAMETERS.opening_primes
_PRIMES = PARAMETERS.primes[:_LEVEL]
_MODULUS = int(np.prod([int(prime) for prime in _PRIMES], dtype=object))
_DIGEST_BYTES = 32
_DATA_MODULI = np.array(PARAMETERS.data_primes, np.uint64)[:, None]
_DATA_MODULUS = int(np.prod([int(prime) for prime in PARAMETERS.data_primes], dtype=object))
_DELTA = np.array([_DATA_MODULUS // _P % int(q) for q in PARAMETERS.data_primes], np.uint64)
#: encryptions of zero kept ahead: those of the messages of one run of a block
POOL_SIZE = 128
_SEAL_SIZE = struct.Struct("<8xQ")


class RefusedAfterDecryptionError(ValueError):
    """A refusal that depends on the secret key, so that it says something about it.

    Whoever may provoke it again and again learns the key one bit at a time; a run ends with it.
    """


@dataclass(frozen=True, slots=True, eq=False)
class SealedSet:
    """A sealed set and the secret order of its rows.

    Attributes:
        layout: public shape.
        blobs: one upload blob per block; public.
        order: (n,) row index in each filled slot, block after block. Secret, like n itself.
    """

    layout: Layout
    blobs: tuple[bytes, ...]
    order: Integers

    def __repr__(self) -> str:
        return f"SealedSet({self.layout!r})"


def _random_order(n: int) -> Integers:
    """Return a permutation of 0..n-1 from the operating system's randomness.

    Sorting by 128-bit keys: two of n <= 2^20 keys agree with probability below 2^-88.
    """
    keys = np.frombuffer(secrets.token_bytes(16 * n), np.uint64).reshape(2, n)
    return np.lexsort(keys).astype(np.int64)


def _scaled(message: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return round(q m / p) mod each data prime (4, N) for coefficients m (N,), as SEAL does.

    floor(q / p) m below each prime is less than 2^64, as m has 20 bits and a prime 44.
    """
    p = np.uint64(_P)
    rest = np.uint64(_DATA_MODULUS % _P) * message + np.uint64((_P + 1) // 2)
    return np.asarray((message * _DELTA[:, None] + rest // p) % _DATA_MODULI, np.uint64)


def _codes(values: ArrayLike, n: int, bound: int, what: str) -> Integers:
    codes = np.asarray(values)
    if codes.shape != (n,) or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"{what}: expected {n} integers, got {codes.dtype} {codes.shape}")
    if n and not 0 <= int(codes.min()) <= int(codes.max()) < bound:
        raise ValueError(f"{what}: expected codes in 0..{bound - 1}")
    return codes.astype(np.int64)


def _checked_columns(columns: ArrayLike) -> Integers:
    table = np.asarray(columns)
    if table.ndim != 2 or not len(table) or not np.issubdtype(table.dtype, np.integer):
        raise ValueError(f"columns: expected (n, C) integers, got {table.dtype} {table.shape}")
    if table.size and not 0 <= int(table.min()) <= int(table.max()) < _P:
        raise ValueError(f"columns: expected integers in 0..{_P - 1}")
    return table.astype(np.int64)


class KeyHolder:
    """One key pair of one owner and campaign."""

    def __init__(self, secret_key: sealapi.SecretKey, public: PublicKeys) -> None:
        """Use `generate` or `load`."""
        self._secret_key = secret_key
        self.public = public
        tools = seal()
        self._encryptor = sealapi.Encryptor(tools.context, public.seal_public_key(), secret_key)
        self._decryptor = sealapi.Decryptor(tools.context, secret_key)
        self._ternary = self._secret_coefficients()
        self._zeros: list[tuple[NDArray[np.uint64], bytes]] = []

    def __repr__(self) -> str:
        return "KeyHolder(...)"

    def __reduce__(self) -> str:
        raise TypeError("a KeyHolder holds a secret key and cannot be copied or pickled")

    @classmethod
    def generate(cls) -> "KeyHolder":
        """Return fresh keys from the operating system's randomness."""
        generator = sealapi.KeyGenerator(seal().context)
        public_key, relin_keys = sealapi.PublicKey(), sealapi.RelinKeys()
        generator.create_public_key(public_key)
        generator.create_relin_keys(relin_keys)
        return cls(generator.secret_key(), PublicKeys.from_seal(public_key, relin_keys))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key file, mode 0600, whole or not at all.

        Raises:
            FileExistsError: the path exists; a key file is never overwritten.
        """
        target = Path(path)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            self._secret_key.save(str(draft))
            digest = hashlib.sha256(draft.read_bytes()).digest()
            with draft.open("ab") as file:
                file.write(framing.encode(Kind.KEY_FILE, [digest, self.public.to_bytes()]))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, target)
        finally:
            draft.unlink()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "KeyHolder":
        """Read a key file.

        Raises:
            PermissionError: others than the owner may read the file.
            ValueError: not a key file of these parameters, or damaged.
        """
        file = Path(path)
        if file.stat().st_mode & 0o077:
            raise PermissionError("key file: others may read it; expected mode 0600")
        data = file.read_bytes()
        size = _SEAL_SIZE.unpack_from(data)[0] if len(data) >= _SEAL_SIZE.size else 0
        if not 0 < size < len(data):
            raise ValueError("key file: expected a secret key followed by public keys")
        digest, public = framing.decode(data[size:], Kind.KEY_FILE, [_DIGEST_BYTES, None])
        if hashlib.sha256(data[:size]).digest() != digest:
            raise ValueError("key file: the secret key is damaged")
        secret_key = sealapi.SecretKey()
        secret_key.load(seal().context, str(file))
        holder = cls(secret_key, PublicKeys.from_bytes(bytes(public)))
        check, plain = sealapi.Ciphertext(), sealapi.Plaintext()
        holder._encryptor.encrypt_zero(check)
        holder._decryptor.decrypt(check, plain)
        if not plain.is_zero():
            raise ValueError("key file: public and secret key do not belong together")
        return holder

    def public_keys(self) -> bytes:
        """Return the public keys' message."""
        return self.public.to_bytes()

    # -- encryption

    def encrypted(self, slots: ArrayLike) -> bytes:
        """Return the packed encryption of integers (up to N,) mod p; missing slots hold 0."""
        values = np.zeros(_N, np.int64)
        given = np.asarray(slots, np.int64)
        values[: len(given)] = given
        plain = seal().encoded(values)
        if not self._zeros:
            first, seed = seal().seeded_parts(self._encryptor.encrypt_symmetric(plain))
            return pack(first) + seed
        zero, seed = self._zeros.pop()
        first = zero + _scaled(seal().coefficients(plain))
        first -= _DATA_MODULI * (first >= _DATA_MODULI)
        return pack(first) + seed

    def prepare(self, most: int) -> int:
        """Make up to so many encryptions of zero ahead, while nobody waits; return how many.

        `encrypted` adds its message to one instead of making one, in half the time; each
        serves once, in this process. POOL_SIZE of them, 33 MB, are kept at most.
        """
        count = max(0, min(most, POOL_SIZE - len(self._zeros)))
        for _ in range(count):
            self._zeros.append(seal().seeded_parts(self._encryptor.encrypt_zero_symmetric()))
        return count

    def seal(
        self,
        columns: ArrayLike,
        labels: ArrayLike,
        n_labels: int,
        cells: ArrayLike | None = None,
        n_cells: int = 0,
        groups: Mapping[str, tuple[ArrayLike, int]] | None = None,
        *,
        max_rows_per_block: int = _N,
        strips: Sequence[int] = (),
    ) -> SealedSet:
        """Encrypt rows in a fresh random order.

        Args:
            columns: (n, C) integers in 0..p-1, n >= 1.
            labels: (n,) codes in 0..n_labels-1.
            n_labels: label classes.
            cells: (n,) matching cell of each row; None with n_cells = 0.
            n_cells: matching cells.
            groups: per attribute the (n,) level codes and the number of levels.
            max_rows_per_block: rows in a block, at most N.
            strips: to pack up to 585 rows, how many consecutive columns each form a group
                (`strips`); models of such a set are linear or additive.

        Raises:
            ValueError: wrong shapes, codes out of range, or too many rows.
        """
        table = _checked_columns(columns)
        n = len(table)
        if not 1 <= max_rows_per_block <= _N:
            raise ValueError(f"max_rows_per_block: expected 1..{_N}, got {max_rows_per_block}")
        if strips and n > STRIP_ROWS:
            raise ValueError(f"strips: a packed set has at most {STRIP_ROWS} rows")
        named = {
            name: (_codes(codes, n, levels, f"group {name}"), int(levels))
            for name, (codes, levels) in (groups or {}).items()
        }
        given_cells = np.zeros(n, np.int64) if cells is None else cells
        rows = _Rows(
            table,
            _codes(labels, n, n_labels, "labels"),
            _codes(given_cells, n, max(n_cells, 1), "cells"),
            [codes for codes, _ in named.values()],
        )
        layout = Layout(
            PARAMETERS.version,
            -(-n // max_rows_per_block),
            table.shape[1],
            n_labels,
            n_cells,
            tuple((name, levels) for name, (_, levels) in named.items()),
            tuple(strips),
        )
        order = _random_order(n)
        blobs = []
        for start in range(0, n, max_rows_per_block):
            members = order[start : start + max_rows_per_block]
            parts = [self.encrypted(slots) for slots in rows.slots(members, layout)]
            blobs.append(framing.encode(Kind.UPLOAD_BLOCK, parts))
        return SealedSet(layout, tuple(blobs), order)

    # -- decryption

    def _secret_coefficients(self) -> Integers:
        """Return the secret polynomial (N,), entries in {-1, 0, 1}.

        (0, round(q / p)) decrypts to exactly the secret key's coefficients mod p.
        """
        residues = np.zeros((2, _LEVEL, _N), np.uint64)
        scale = (_MODULUS + _P // 2) // _P
        residues[1, :, 0] = [scale % prime for prime in _PRIMES]
        plain = sealapi.Plaintext()
        self._decryptor.decrypt(seal().ciphertext(residues), plain)
        values = np.array([plain.data(i) for i in range(plain.coeff_count())], np.int64)
        values = np.concatenate([values, np.zeros(_N - len(values), np.int64)])
        return np.where(values == _P - 1, -1, values)

    def vector(self, part: memoryview, what: str) -> Integers:
        """Return the slots (N,) of a flooded vector.

        Raises:
            ValueError: wrong size, a residue out of range, or too little noise budget left.
        """
        ciphertext = seal().ciphertext(unpack(part, 2, _PRIMES, what))
        budget = self._decryptor.invariant_noise_budget(ciphertext)
        if budget < PARAMETERS.minimum_budget:
            raise RefusedAfterDecryptionError(
                f"{what}: expected at least {PARAMETERS.minimum_budget} bits of noise budget, "
                f"got {budget}"
            )
        plain = sealapi.Plaintext()
        self._decryptor.decrypt(ciphertext, plain)
        return np.array(seal().encoder.decode_uint64(plain), np.int64)

    def opened(
        self, part: memoryview, what: str, minimum_budget: int = PARAMETERS.minimum_budget
    ) -> int:
        """Return the one coefficient 0..p-1 that an opening shows.

        Decrypts that coefficient alone: c0[0] + (c1 s)[0] with
        (c1 s)[0] = c1[0] s[0] - sum over i of c1[i] s[N - i], exact in 64 bits as s is ternary.

        Raises:
            ValueError: wrong size, a residue out of range, or too little noise budget left.
        """
        if len(part) != OPENING_BYTES:
            raise ValueError(f"{what}: expected {OPENING_BYTES} bytes, got {len(part)}")
        words = struct.unpack_from(f"<{_LEVEL}Q", part)
        second = unpack(part[8 * _LEVEL :], 1, _PRIMES, what)[0].astype(np.int64)
        phase, product = 0, 1
        for row, prime in enumerate(_PRIMES):
            if words[row] >= prime:
                raise ValueError(f"{what}: a residue is not below its prime {prime}")
            inner = int(second[row, 0] * self._ternary[0])
            inner -= int(second[row, 1:] @ self._ternary[:0:-1])
            residue = (words[row] + inner) % prime
            phase += product * ((residue - phase) * pow(product, -1, prime) % prime)
            product *= prime
        value = (phase * _P + _MODULUS // 2) // _MODULUS
        error = abs(phase * _P - value * _MODULUS)
        if error << (minimum_budget + 1) > _MODULUS:
            raise RefusedAfterDecryptionError(
                f"{what}: expected at least {minimum_budget} bits of noise budget"
            )
        return value % _P


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Checked rows."""

    columns: Integers
    labels: Integers
    cells: Integers
    groups: Sequence[Integers]

    def slots(self, members: Integers, layout: Layout) -> Iterator[Integers]:
        """Yield the slots of a block's ciphertexts in the layout's order."""
        labels = self.labels[members]
        one_hot = [(labels == label).astype(np.int64) for label in range(layout.labels)]
        columns = self.columns[members].T
        yield from _in_strips(columns, layout) if layout.strips else columns
        yield from one_hot
        yield np.ones(len(members), np.int64)
        codes = [(self.cells, layout.cells)]
        levels = (levels for _, levels in layout.groups)
        codes += list(zip(self.groups, levels, strict=True))
        for values, count in codes:
            mine = values[members]
            for code in range(count):
                for mask in one_hot:
                    yield (mine == code) * mask
        if layout.strips:
            yield repeated(np.ones(len(members), np.int64))


def _in_strips(columns: Integers, layout: Layout) -> Integers:
    """Return the layers (layers, N) of a block's columns (C, rows)."""
    found = np.zeros((layout.layers, _N), np.int64)
    for (layer, number), values in zip(layout.places, columns, strict=True):
        found[layer, strip(number)][: len(values)] = values
    return found
