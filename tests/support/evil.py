"""A malicious key holder's tools: it knows its key, so it rewrites and decrypts at will."""

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.checked import CheckedScoringRun
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.comparison import grid
from secure_eval.framing import Kind
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import seeded_ciphertext
from secure_eval.noise import Table
from secure_eval.nonces import nonce_commitment
from secure_eval.packing import OPENING_BYTES, SEED_BYTES, pack, unpack
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

P = PARAMETERS.plain_modulus
N = PARAMETERS.degree
SEED = bytes(range(32))
NONCES = (b"n" * 16, b"d" * 16)
COMMITMENTS = [nonce_commitment(nonce) for nonce in NONCES]

Integers = NDArray[np.int64]
Change = Callable[[list[bytes]], None]


def parts_of(message: bytes, kind: Kind) -> list[bytes]:
    """The parts of any message, whatever their lengths."""
    count = int.from_bytes(message[2:6], "little")
    return [bytes(part) for part in framing.decode(message, kind, [None] * count)]


def rewritten(message: bytes, kind: Kind, change: Change) -> bytes:
    """The message with its parts changed."""
    parts = parts_of(message, kind)
    change(parts)
    return framing.encode(kind, parts)


class Thief:
    """What the holder of a key can do beyond the protocol."""

    def __init__(self, holder: KeyHolder) -> None:
        self.holder = holder

    def slots(self, part: bytes) -> Integers:
        """The slots of one of its own ciphertexts."""
        plain = sealapi.Plaintext()
        self.holder._decryptor.decrypt(seeded_ciphertext(memoryview(part), "x"), plain)
        return np.array(seal().encoder.decode_uint64(plain), np.int64)

    def elements(self, message: bytes, kind: Kind) -> list[int]:
        """What a message of openings shows, whatever noise it carries."""
        parts = parts_of(message, kind)
        assert all(len(part) == OPENING_BYTES for part in parts)
        return [self.holder.opened(memoryview(part), "x", -1) for part in parts]

    def replies(self, message: bytes, kind: Kind, reply: Kind) -> bytes:
        """Answer openings whatever noise they carry."""
        opened = self.elements(message, kind)
        return framing.encode(reply, [np.array(opened, "<u4").tobytes()])

    def set(self, index: int, slot: int, value: int) -> Change:
        """Another value in one slot of one part."""

        def change(parts: list[bytes]) -> None:
            slots = self.slots(parts[index])
            slots[slot] = value % P
            parts[index] = self.holder.encrypted(slots)

        return change

    def loud(self, indices: Sequence[int], bits: int, where: slice) -> Change:
        """The right messages with noise of 2^bits in some coefficients."""

        def change(parts: list[bytes]) -> None:
            for index in indices:
                body, seed = parts[index][:-SEED_BYTES], parts[index][-SEED_BYTES:]
                residues = unpack(body, 1, PARAMETERS.data_primes, "x")[0].astype(object)
                for row, prime in enumerate(PARAMETERS.data_primes):
                    residues[row, where] = (residues[row, where] + (1 << bits)) % prime
                parts[index] = pack(residues.astype(np.uint64)) + seed

        return change

    def loud_whole(self, index: int, bits: int, coefficient: int = 77) -> Change:
        """The same in one coefficient of a ciphertext under the public key."""

        def change(parts: list[bytes]) -> None:
            residues = unpack(parts[index], 2, PARAMETERS.data_primes, "x").astype(object)
            for row, prime in enumerate(PARAMETERS.data_primes):
                value = residues[0, row, coefficient] + (1 << bits)
                residues[0, row, coefficient] = value % prime
            parts[index] = pack(residues.astype(np.uint64))

        return change

    def noise_of(self, part: bytes) -> list[int]:
        """The exact noise (N,) of a vector it was sent, from its secret key."""
        tools, primes = seal(), PARAMETERS.primes[:2]
        first, second = unpack(part, 2, primes, "x")
        carrier = tools.ntt(tools.ciphertext(np.stack([second, second])))
        key = tools.plain_ntt(tools.polynomial(self.holder._ternary), 2)
        product = tools.times_plain(carrier, key)
        tools.evaluator.transform_from_ntt_inplace(product)
        phase = first.astype(object) + tools.residues(product)[0].astype(object)
        low, high = (row % prime for row, prime in zip(phase, primes, strict=True))
        modulus = primes[0] * primes[1]
        lift = pow(primes[0], -1, primes[1])
        return [
            _noise(a + primes[0] * ((b - a) * lift % primes[1]), modulus)
            for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ]

    def opening_noise_of(self, part: bytes) -> int:
        """The exact noise of an opening it was sent."""
        primes = PARAMETERS.primes[:2]
        second = unpack(memoryview(part)[16:], 1, primes, "x")[0].astype(object)
        key = self.holder._ternary.astype(object)
        phase, product = 0, 1
        for row, prime in enumerate(primes):
            first = int.from_bytes(part[8 * row : 8 * row + 8], "little")
            inner = first + second[row, 0] * key[0] - int(second[row, 1:] @ key[:0:-1])
            phase += product * ((inner - phase) * pow(product, -1, prime) % prime)
            product *= prime
        return _noise(phase, product)


def _noise(value: int, modulus: int) -> int:
    """What a phase is beside the nearest message."""
    message = (value * P + modulus // 2) // modulus
    return value - (modulus * message + P // 2) // P


def solve_weights(
    shares: Integers, masked: Integers, rows: Integers, constants: Sequence[int]
) -> Any:
    """The weights that a holder of constant digits computes from shares, or None.

    With constants in the place of one-hot digits the share is a known polynomial in the digits of
    the evaluator's mask: invert it, so the mask's low part is known wherever only one fits; the
    score mod D / 2 follows, and the weights by elimination.
    """
    cells = grid(32)
    values, digits = np.arange(cells.width), []
    for radix in cells.radices:
        digits.append(values % radix)
        values = values // radix
    total: Any = 0
    for constant, digit, radix in zip(constants, digits, cells.radices, strict=True):
        less = constant * digit
        same = np.where(digit < radix - 1, constant, 1 - constant * (radix - 1))
        total = (less + same * total) % P
    inverse: dict[int, list[int]] = {}
    for low, value in enumerate(total.tolist()):
        inverse.setdefault(value, []).append(low)
    found = [
        {low for start in range(31) for low in inverse.get((share - start) % P, ())}
        for share in shares.tolist()
    ]
    known = np.array([index for index, candidates in enumerate(found) if len(candidates) == 1], int)
    if len(known) <= rows.shape[1]:
        return None
    low = np.array([next(iter(found[index])) for index in known])
    doubled = (masked[known] - low + cells.shift) % cells.width
    half = cells.width // 2
    target = (doubled + doubled % 2) // 2 % half
    table = np.concatenate([rows[known], np.ones((len(known), 1), np.int64)], axis=1)
    return eliminated(table, target, half)


def eliminated(table: Integers, target: Integers, modulus: int) -> Any:
    """The solution of table @ x = target mod modulus that fits most rows, centred."""
    width, best, share = table.shape[1], None, 0.0
    for attempt in range(20):
        order = np.random.default_rng(attempt).permutation(len(table))[: 8 * width]
        work = np.concatenate([table, target[:, None]], axis=1)[order].astype(object) % modulus
        for column in range(width):
            pivots = (i for i in range(column, len(work)) if gcd(work[i, column], modulus) == 1)
            pivot = next(pivots, None)
            if pivot is None:
                break
            work[[column, pivot]] = work[[pivot, column]]
            work[column] = work[column] * pow(work[column, column], -1, modulus) % modulus
            for other in range(len(work)):
                if other != column and work[other, column]:
                    work[other] = (work[other] - work[other, column] * work[column]) % modulus
        else:
            solution = work[:width, -1].astype(np.int64)
            some = np.random.default_rng(0).permutation(len(table))[:500]
            gap = table[some].astype(object) @ solution.astype(object) - target[some]
            fit = float((gap % modulus == 0).mean())
            if fit > share:
                best, share = solution, fit
    if best is None:
        return None
    return np.where(best > modulus // 2, best - modulus, best)[:-1]


class Stage:
    """One sealed set, one model and one checked run, taken as far as a test wants."""

    def __init__(
        self,
        holder: KeyHolder,
        model: IntegerModel,
        n: int = 30,
        run_id: str = "run",
        coins: Sequence[int] = (),
        strips: Sequence[int] = (),
    ) -> None:
        rng = np.random.default_rng(n)
        sizes = [column.size for column in model.columns]
        self.columns = rng.integers(0, sizes, (n, len(sizes)))
        self.labels = rng.integers(0, 2, n)
        self.holder, self.model, self.coins = holder, model, coins
        self.sealed = holder.seal(self.columns, self.labels, 2, strips=strips)
        self.start(run_id)

    def start(self, run_id: str) -> None:
        """A fresh run on the same set."""
        layout = self.sealed.layout
        self.server = CheckedScoringRun(
            self.holder.public_keys(),
            layout,
            self.sealed.blobs,
            self.model,
            range(layout.columns),
            SEED,
            run_id,
            NONCES[0],
            coins=self.coins,
        )
        self.agent = CheckedAgentRun(
            self.holder, layout, self.labels[self.sealed.order], run_id, bins=self.model.bins
        )
        coins = self.coins or [0] * len(self.server.table_cells)
        self.tables = [
            Table(name, cells, 500_000, number)
            for (name, cells), number in zip(self.server.table_cells, coins, strict=True)
        ]
        self.messages = {"score": self.server.score()}
        self.messages["digits"] = self.agent.digits(
            self.messages["score"], self.tables, COMMITMENTS
        )

    def early(self, digits: bytes) -> bytes:
        """The early checks of a digits message; each lie counts as a run of its own."""
        self.server._received.clear()
        return self.server.early_checks(digits)

    def final(self, characters: bytes) -> bytes:
        """The final checks of a characters message; each lie counts as a run of its own."""
        self.server._received.pop("CHARACTERS", None)
        return self.server.final_checks(characters)

    def to_characters(self) -> None:
        """Go on honestly to message 4."""
        checks = self.early(self.messages["digits"])
        self.server.accept_early(self.agent.early_replies(checks))
        self.messages["shares"] = self.server.shares(self.messages["digits"])
        self.messages["characters"] = self.agent.characters(self.messages["shares"], NONCES)

    def to_openings(self) -> None:
        """Go on honestly to message 5."""
        self.final_checks = self.final(self.messages["characters"])
        self.server.accept_final(self.agent.final_replies(self.final_checks))
        self.messages["openings"] = self.server.openings(self.messages["characters"], NONCES)

    def plain_counts(self) -> Integers:
        """Exact counts (label, published bin)."""
        scores = self.model.score_columns(self.columns)
        return np.stack(
            [np.histogram(scores[self.labels == label], self.model.edges)[0] for label in (0, 1)]
        )
