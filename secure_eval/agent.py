"""The key holder's part in a run: strict, in order, each round once, resumable.

Numbered sections are those of docs/protocol.md.

Guarantee: whatever the other side sends, each round is answered once; the same bytes again get the
    stored reply, other bytes an error; nothing is decrypted that is not of the expected shape,
    order, number and noise budget. What is released, and the commitments to the nonces, are fixed
    with the first round; nonces that do not open them are refused.
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
from secure_eval.coins import CoinPlan
from secure_eval.comparison import grid
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder, RefusedAfterDecryptionError
from secure_eval.layout import MAX_CELLS, Layout, Shapes
from secure_eval.noise import Table, coin_plan, commitment, table_noise, total_cells
from secure_eval.nonces import COMMITMENT_BYTES, check_nonces
from secure_eval.params import PARAMETERS
from secure_eval.strips import STRIP_ROWS, folded

__all__ = ["AgentRun", "Rounds", "checked_tables", "opened_replies"]

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


def checked_tables(tables: Sequence[Table], exact: bool) -> tuple[Table, ...]:
    """Return the tables of a release.

    Raises:
        ValueError: none, too many cells, two laws, or no epsilon where there must be one.
    """
    tables = tuple(tables)
    if not tables or total_cells(tables) > MAX_CELLS:
        raise ValueError(f"tables: expected 1 to {MAX_CELLS} cells")
    if not exact and any(table.epsilon_micro is None for table in tables):
        raise ValueError("tables: every table needs an epsilon; exact counts are for rehearsals")
    if len({table.name for table in tables}) != len(tables):
        raise ValueError("tables: two tables have the same name")
    coin_plan(tables)
    return tables


def _agreed(tables: Sequence[Table], commitments: Sequence[bytes]) -> dict[str, Any]:
    """Return what both sides agreed before the first round, as JSON."""
    described = [[t.name, t.n_cells, t.epsilon_micro, t.coins] for t in tables]
    return {"tables": described, "commitments": [bytes(item).hex() for item in commitments]}


def opened_replies(
    holder: KeyHolder, message: bytes, n_cells: int, kind: Kind, reply: Kind
) -> bytes:
    """Return the replies to exactly the openings that were agreed.

    Raises:
        ValueError: another number, or an opening of the wrong shape or budget.
    """
    shapes = Shapes(1, 2, 32, n_cells)
    parts = framing.decode(message, kind, shapes.openings())
    opened = [holder.opened(part, f"{kind.name} {i}") for i, part in enumerate(parts)]
    return framing.encode(reply, [np.array(opened, "<u4").tobytes()])


class AgentRun:
    """The key holder's side of one scoring run, without the rounds of its tests.

    `checked_agent.CheckedAgentRun` is the side that answers those as well.
    """

    _ROUNDS: tuple[str, ...] = ("digits", "characters", "replies")
    _CHECKED = True

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
            TypeError: the run has no tests.
        """
        if type(self) is AgentRun:
            raise TypeError("a run without tests is no run; use CheckedAgentRun")
        self._holder = key_holder
        self._layout = layout
        self._run_id = run_id
        self._grid = grid(bins)
        codes = np.asarray(labels, np.int64)
        if codes.ndim != 1 or -(-len(codes) // rows_per_block) != layout.n_blocks:
            raise ValueError(f"labels: do not fill {layout.n_blocks} blocks")
        if layout.strips and len(codes) > STRIP_ROWS:
            raise ValueError(f"labels: a packed set has at most {STRIP_ROWS} rows")
        if not 0 <= int(codes.min()) <= int(codes.max()) < layout.labels:
            raise ValueError(f"labels: expected codes in 0..{layout.labels - 1}")
        self._labels = [
            codes[start : start + rows_per_block] for start in range(0, len(codes), rows_per_block)
        ]
        self._allow_exact = allow_exact
        self._noise_key = secrets.token_bytes(_KEY_BYTES)
        self._rounds = Rounds(self._ROUNDS)
        self._tables: tuple[Table, ...] = ()
        self._commitments: tuple[bytes, ...] = ()
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

    @property
    def _plan(self) -> CoinPlan | None:
        return coin_plan(self._tables)

    @property
    def _shapes(self) -> Shapes:
        return Shapes(
            self._layout.n_blocks,
            self._layout.labels,
            self._grid.bins,
            total_cells(self._tables),
            self._CHECKED,
            self._plan.ciphertexts if self._plan else 0,
        )

    def digits(self, score: bytes, tables: Sequence[Table], commitments: Sequence[bytes]) -> bytes:
        """Return message 2 for message 1 (section 2): low digits, flags, tops and coins, if any.

        Guarantee:
            Tells the evaluator nothing: all of it is encrypted. It fixes the noise of the run.
        Assumes:
            As `KeyHolder.encrypted`; the noise key is fresh.
        Proof:
            Coins and the commitment follow from the noise key before either nonce is known, so
            they are independent of the flips; what they are worth is said in `coins`.

        Args:
            score: message 1.
            tables: what is released, and under which law; the histogram first.
            commitments: to the evaluator's and the developer's nonce, 32 bytes each.

        Raises:
            ValueError: a malformed or unexpected message, table or commitment.
        """
        request = json.dumps(_agreed(tables, commitments)).encode() + score
        return self._rounds.answer(
            "digits", request, lambda: self._digits(score, tables, commitments)
        )

    def _digits(self, score: bytes, tables: Sequence[Table], commitments: Sequence[bytes]) -> bytes:
        tables = checked_tables(tables, self._allow_exact)
        if [len(commitment_) for commitment_ in commitments] != [COMMITMENT_BYTES] * 2:
            raise ValueError("nonces: expected two 32-byte commitments before the noise key's")
        parts = framing.decode(score, Kind.SCORE, self._shapes.score())
        answer = [self.commitment]
        for block, part in enumerate(parts):
            masked = self._holder.vector(part, f"SCORE block {block}")
            # of a packed set, the sum of the strips' uniform numbers: as uniform, and all it needs
            share = self._grid.split_masked(folded(masked) if self._layout.strips else masked)
            self._tops[block] = share.top
            for radix, digit in zip(self._grid.radices, share.digits, strict=True):
                answer += [self._holder.encrypted(digit == value) for value in range(radix - 1)]
            answer += [self._holder.encrypted(share.flag), self._holder.encrypted(share.top)]
        self._tables, self._commitments = tables, tuple(map(bytes, commitments))
        if self._plan is not None:
            coins = self._plan.drawn(self._noise_key, self._run_id)
            answer += [self._holder.encrypted(bits) for bits in coins]
        return framing.encode(Kind.DIGITS, answer)

    def characters(self, shares: bytes, nonces: Sequence[bytes]) -> bytes:
        """Return message 4 for message 3 (section 5): noise, if geometric, and characters.

        Guarantee:
            What the evaluator can open afterwards are the counts of `tables` plus the noise of
            their laws, so it is (sum of the tables' epsilons)-DP under adding or removing one
            patient; with coins each table adds its delta of 1e-6.
        Assumes:
            One row per patient. Somebody debited the sum before (the owner's ledger). Noise key
            and at least one nonce are random.
        Proof:
            A patient is in one cell of each table at most, so `noise` makes each table private at
            its own epsilon; basic composition adds them (Dwork et al. 2006). The noise follows
            from the committed key and both nonces, so nobody chooses it, and the round is answered
            once, so there is one draw.

        Args:
            shares: message 3.
            nonces: the evaluator's and the developer's, 16 bytes each.

        Raises:
            ValueError: a malformed or unexpected message, or a nonce that does not open its
                commitment.
        """
        request = b"".join([*nonces, shares])
        return self._rounds.answer("characters", request, lambda: self._characters(shares, nonces))

    def _characters(self, shares: bytes, nonces: Sequence[bytes]) -> bytes:
        check_nonces(nonces, self._commitments)
        parts = framing.decode(shares, Kind.SHARES, self._shapes.shares())
        opened = [
            self._holder.vector(part, f"SHARES vector {index}") for index, part in enumerate(parts)
        ]
        step = self._shapes.vectors_per_share
        if any(int(share.max()) >= self._grid.bins for share in opened[::step]):
            raise RefusedAfterDecryptionError(
                f"SHARES: expected values below {self._grid.bins} in every slot"
            )
        noise = table_noise(self._noise_key, self._run_id, (nonces[0], nonces[1]), self._tables)
        answer = []
        if self._plan is None:
            key = self._holder.public.public_key
            answer.append(encrypted_noise(key, self._noise_key, self._run_id, noise))
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
            lambda: opened_replies(
                self._holder, openings, len(self._noise), Kind.OPENINGS, Kind.REPLIES
            ),
        )

    def state(self) -> bytes:
        """Return everything needed to go on after a restart. Secret: store it like the key."""
        agreed = _agreed(self._tables, self._commitments)
        head = json.dumps({"run_id": self._run_id, "bins": self._grid.bins, **agreed}).encode()
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
        plain: Any = json.loads(head)
        try:
            if (plain["run_id"], plain["bins"]) != (self._run_id, self._grid.bins):
                raise ValueError("state: belongs to another run")
            self._tables = tuple(Table(*item) for item in plain["tables"])
            self._commitments = tuple(bytes.fromhex(item) for item in plain["commitments"])
        except (KeyError, TypeError) as error:
            raise ValueError("state: its head is malformed") from error
        self._noise_key = key
        self._tops = np.frombuffer(tops, "<i8").astype(np.int64).reshape(-1, _N)
        self._noise = np.frombuffer(noise, "<i8").astype(np.int64)
        self._rounds.restore(entries)
