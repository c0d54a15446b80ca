"""The key holder's part in a run: strict, in order, each round once, resumable.

Numbered sections are those of docs/protocol.md.

Guarantee: whatever the other side sends, each round is answered once; the same bytes again get the
    stored reply, other bytes an error; nothing is decrypted that is not of the expected shape,
    order, number and noise budget. Epsilon is spent when `characters` (or the target's noise)
    leaves.
Assumes: the caller stores `state()` before it sends a reply, so that a restart repeats the reply,
    and after a refusal too, so that a restart does not reopen the round.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval import framing
from secure_eval.comparison import grid
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder, RefusedAfterDecryptionError
from secure_eval.layout import MAX_CELLS, Layout, Shapes
from secure_eval.noise import Table, commitment, table_noise, total_cells
from secure_eval.params import PARAMETERS

__all__ = ["AgentRun", "AgentTarget", "Rounds", "encrypted_noise"]

Integers = NDArray[np.int64]

_N = PARAMETERS.degree
_KEY_BYTES = 32


class Rounds:
    """Stored answers, one per round, in a fixed order.

    A malformed message leaves its round open. One that is refused after decryption ends the run,
    for a refusal then says something about the secret key; it is stored as an empty reply.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self.stored: dict[str, tuple[bytes, bytes]] = {}

    def answer(self, name: str, request: bytes, make: Callable[[], bytes]) -> bytes:
        """Return the stored reply to the same request, or make, store and return one.

        Raises:
            ValueError: another request than before, a round before its turn, or a run that ended.
        """
        if any(not reply for _, reply in self.stored.values()):
            raise ValueError(f"{name}: the run ended when a message was refused after decryption")
        digest = hashlib.sha256(request).digest()
        if name in self.stored:
            if self.stored[name][0] != digest:
                raise ValueError(f"{name}: this round was already answered for other bytes")
            return self.stored[name][1]
        turn = self._names[len(self.stored)]
        if name != turn:
            raise ValueError(f"{name}: expected the round {turn} first")
        try:
            reply = make()
        except RefusedAfterDecryptionError:
            self.stored[name] = (digest, b"")
            raise
        self.stored[name] = (digest, reply)
        return reply

    def entries(self) -> list[bytes]:
        """Return (digest, reply) per round for a state; empty bytes where not yet answered."""
        return [part for name in self._names for part in self.stored.get(name, (b"", b""))]

    def restore(self, entries: Sequence[bytes]) -> None:
        """Read `entries` back."""
        pairs = zip(self._names, entries[0::2], entries[1::2], strict=True)
        self.stored = {name: (digest, reply) for name, digest, reply in pairs if digest}


def _checked_tables(tables: Sequence[Table], exact: bool) -> tuple[Table, ...]:
    tables = tuple(tables)
    if not tables or total_cells(tables) > MAX_CELLS:
        raise ValueError(f"tables: expected 1 to {MAX_CELLS} cells")
    if not exact and any(table.epsilon_micro is None for table in tables):
        raise ValueError("tables: every table needs an epsilon; exact counts are for rehearsals")
    return tables


def _request(message: bytes, nonces: tuple[bytes, bytes], tables: Sequence[Table]) -> bytes:
    described = [[table.name, table.n_cells, table.epsilon_micro] for table in tables]
    return b"".join([*nonces, json.dumps(described).encode(), message])


class AgentRun:
    """The key holder's side of one scoring run."""

    _ROUNDS: tuple[str, ...] = ("digits", "characters", "replies")
    _CHECKED = False

    def __init__(
        self,
        key_holder: KeyHolder,
        layout: Layout,
        labels: ArrayLike,
        run_id: str,
        *,
        bins: int = 32,
        rows_per_block: int = _N,
        allow_exact: bool = False,
    ) -> None:
        """Start a run with a fresh noise key.

        Args:
            key_holder: the secret key.
            layout: shape of the sealed set.
            labels: (n,) label codes in slot order, that is labels[sealed.order].
            run_id: unique name of the run, the same on both sides.
            bins: hidden bins of the model.
            rows_per_block: as at sealing.
            allow_exact: accept tables without noise; rehearsals only.

        Raises:
            ValueError: labels do not fit the layout.
        """
        self._holder = key_holder
        self._layout = layout
        self._run_id = run_id
        self._grid = grid(bins)
        codes = np.asarray(labels, np.int64)
        if codes.ndim != 1 or -(-len(codes) // rows_per_block) != layout.n_blocks:
            raise ValueError(f"labels: do not fill {layout.n_blocks} blocks")
        if not 0 <= int(codes.min()) <= int(codes.max()) < layout.labels:
            raise ValueError(f"labels: expected codes in 0..{layout.labels - 1}")
        self._labels = [
            codes[start : start + rows_per_block] for start in range(0, len(codes), rows_per_block)
        ]
        self._allow_exact = allow_exact
        self._noise_key = secrets.token_bytes(_KEY_BYTES)
        self._rounds = Rounds(self._ROUNDS)
        self._tops = np.zeros((layout.n_blocks, _N), np.int64)
        self._noise = np.zeros(0, np.int64)

    @property
    def commitment(self) -> bytes:
        """Commitment to the noise key; the first part of the digits message."""
        return commitment(self._noise_key)

    @property
    def noise(self) -> Integers:
        """The noise (cells,) of this run, for the owner's own record; empty until drawn."""
        return self._noise.copy()

    def _shapes(self, n_cells: int = 0) -> Shapes:
        return Shapes(
            self._layout.n_blocks, self._layout.labels, self._grid.bins, n_cells, self._CHECKED
        )

    def digits(self, score: bytes) -> bytes:
        """Return message 2 for message 1 (section 2): one-hot low digits and flags.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        return self._rounds.answer("digits", score, lambda: self._digits(score))

    def _digits(self, score: bytes) -> bytes:
        parts = framing.decode(score, Kind.SCORE, self._shapes().score())
        answer = [self.commitment]
        for block, part in enumerate(parts):
            share = self._grid.split_masked(self._holder.vector(part, f"SCORE block {block}"))
            self._tops[block] = share.top
            for radix, digit in zip(self._grid.radices, share.digits, strict=True):
                answer += [self._holder.encrypted(digit == value) for value in range(radix - 1)]
            answer.append(self._holder.encrypted(share.flag))
        return framing.encode(Kind.DIGITS, answer)

    def characters(
        self, shares: bytes, nonces: tuple[bytes, bytes], tables: Sequence[Table]
    ) -> bytes:
        """Return message 4 for message 3 (section 5): noise and characters. Spends epsilon.

        Args:
            shares: message 3.
            nonces: the evaluator's and the developer's, 16 bytes each.
            tables: what is released; the histogram first.

        Raises:
            ValueError: a malformed or unexpected message, nonce or table.
        """
        request = _request(shares, nonces, tables)
        return self._rounds.answer(
            "characters", request, lambda: self._characters(shares, nonces, tables)
        )

    def _characters(
        self, shares: bytes, nonces: tuple[bytes, bytes], tables: Sequence[Table]
    ) -> bytes:
        tables = _checked_tables(tables, self._allow_exact)
        parts = framing.decode(shares, Kind.SHARES, self._shapes().shares())
        opened = [
            self._holder.vector(part, f"SHARES vector {index}") for index, part in enumerate(parts)
        ]
        step = self._shapes().vectors_per_share
        if any(int(share.max()) >= self._grid.bins for share in opened[::step]):
            raise RefusedAfterDecryptionError(
                f"SHARES: expected values below {self._grid.bins} in every slot"
            )
        noise = table_noise(self._noise_key, self._run_id, nonces, tables)
        public_key = self._holder.public.public_key
        answer = [encrypted_noise(public_key, self._noise_key, self._run_id, noise)]
        for block, (labels, top) in enumerate(zip(self._labels, self._tops, strict=True)):
            vectors = opened[block * step : (block + 1) * step]
            characters = self._grid.characters((top - vectors[0])[: len(labels)])
            for label in range(self._layout.labels):
                mine = (labels == label).astype(np.int64)
                answer += [self._holder.encrypted(mine * values) for values in characters[1:]]
            if self._CHECKED:
                answer += [self._holder.encrypted(vector) for vector in vectors]
        self._noise = noise
        return framing.encode(Kind.CHARACTERS, answer)

    def replies(self, openings: bytes) -> bytes:
        """Return message 6 for message 5 (section 7): a masked field element per opening.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        return self._rounds.answer(
            "replies",
            openings,
            lambda: _replies(self._holder, openings, len(self._noise), Kind.OPENINGS, Kind.REPLIES),
        )

    def state(self) -> bytes:
        """Return everything needed to go on after a restart. Secret: store it like the key."""
        head = json.dumps({"run_id": self._run_id, "bins": self._grid.bins}).encode()
        arrays = [self._tops.astype("<i8").tobytes(), self._noise.astype("<i8").tobytes()]
        return framing.encode(
            Kind.RUN_STATE, [head, self._noise_key, *arrays, *self._rounds.entries()]
        )

    def restore(self, state: bytes) -> None:
        """Continue from a state of the same run.

        Raises:
            ValueError: a malformed state or one of another run.
        """
        lengths: list[int | None] = [None, _KEY_BYTES, self._tops.nbytes]
        lengths += [None] * (1 + 2 * len(self._ROUNDS))
        head, key, tops, noise, *entries = map(
            bytes, framing.decode(state, Kind.RUN_STATE, lengths)
        )
        if json.loads(head) != {"run_id": self._run_id, "bins": self._grid.bins}:
            raise ValueError("state: belongs to another run")
        self._noise_key = key
        self._tops = np.frombuffer(tops, "<i8").astype(np.int64).reshape(-1, _N)
        self._noise = np.frombuffer(noise, "<i8").astype(np.int64)
        self._rounds.restore(entries)


def _replies(holder: KeyHolder, message: bytes, n_cells: int, kind: Kind, reply: Kind) -> bytes:
    """Return the replies to exactly the openings that were agreed."""
    shapes = Shapes(1, 2, 32, n_cells)
    parts = framing.decode(message, kind, shapes.openings())
    opened = [holder.opened(part, f"{kind.name} {i}") for i, part in enumerate(parts)]
    return framing.encode(reply, [np.array(opened, "<u4").tobytes()])


class AgentTarget:
    """The key holder's side of opening the target histogram."""

    _ROUNDS = ("noise", "replies")

    def __init__(
        self, key_holder: KeyHolder, layout: Layout, run_id: str, *, allow_exact: bool = False
    ) -> None:
        """Start with a fresh noise key."""
        self._holder = key_holder
        self._layout = layout
        self._run_id = run_id
        self._allow_exact = allow_exact
        self._noise_key = secrets.token_bytes(_KEY_BYTES)
        self._rounds = Rounds(self._ROUNDS)
        self._noise = np.zeros(0, np.int64)

    @property
    def commitment(self) -> bytes:
        """Commitment to the noise key, to be published before the nonces."""
        return commitment(self._noise_key)

    @property
    def noise(self) -> Integers:
        """The noise (cells x labels,) for the owner's own record; empty until drawn."""
        return self._noise.copy()

    def noise_message(self, nonces: tuple[bytes, bytes], epsilon_micro: int | None) -> bytes:
        """Return the encrypted noise. Spends epsilon.

        Args:
            nonces: the evaluator's and the other party's, 16 bytes each.
            epsilon_micro: epsilon in millionths.

        Raises:
            ValueError: malformed nonces or epsilon, or other ones than before.
        """
        n_cells = self._layout.cells * self._layout.labels
        tables = _checked_tables([Table("target", n_cells, epsilon_micro)], self._allow_exact)
        request = _request(b"", nonces, tables)
        return self._rounds.answer("noise", request, lambda: self._encrypted(nonces, tables))

    def _encrypted(self, nonces: tuple[bytes, bytes], tables: Sequence[Table]) -> bytes:
        noise = table_noise(self._noise_key, self._run_id, nonces, tables)
        public_key = self._holder.public.public_key
        part = encrypted_noise(public_key, self._noise_key, self._run_id, noise)
        self._noise = noise
        return framing.encode(Kind.TARGET_NOISE, [part])

    def replies(self, openings: bytes) -> bytes:
        """Return one masked field element per opening.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        return self._rounds.answer(
            "replies",
            openings,
            lambda: _replies(
                self._holder,
                openings,
                len(self._noise),
                Kind.TARGET_OPENINGS,
                Kind.TARGET_REPLIES,
            ),
        )

    def state(self) -> bytes:
        """Return everything needed to go on after a restart. Secret: store it like the key."""
        head = json.dumps({"run_id": self._run_id}).encode()
        noise = self._noise.astype("<i8").tobytes()
        parts = [head, self._noise_key, noise, *self._rounds.entries()]
        return framing.encode(Kind.TARGET_STATE, parts)

    def restore(self, state: bytes) -> None:
        """Continue from a state of the same opening.

        Raises:
            ValueError: a malformed state or one of another opening.
        """
        lengths: list[int | None] = [None, _KEY_BYTES, *[None] * (1 + 2 * len(self._ROUNDS))]
        parts = framing.decode(state, Kind.TARGET_STATE, lengths)
        head, key, noise, *entries = map(bytes, parts)
        plain: Any = json.loads(head)
        if plain != {"run_id": self._run_id}:
            raise ValueError("state: belongs to another opening")
        self._noise_key = key
        self._noise = np.frombuffer(noise, "<i8").astype(np.int64)
        self._rounds.restore(entries)
