"""The key holder's side of opening a target: commitment, noise, its test, masked sums.

Protocol section 0 (docs/protocol.md). The noise key of each target is its own, so that an arbiter
who is given one learns the noise of one release only.
"""

import json
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.agent import Rounds, checked_tables, opened_replies
from secure_eval.checked_agent import check_replies
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Layout
from secure_eval.noise import Table, commitment, table_noise
from secure_eval.nonces import COMMITMENT_BYTES, NO_DEVELOPER, check_nonces

__all__ = ["AgentTarget"]

Integers = NDArray[np.int64]

_KEY_BYTES = 32


class AgentTarget:
    """The key holder's side of opening the target histogram."""

    _ROUNDS = ("commitment", "noise", "checks", "replies")

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
        self._committed = b""
        self._noise = np.zeros(0, np.int64)

    def commit(self, nonce_commitment: bytes) -> bytes:
        """Return the commitment to a fresh noise key, after the evaluator's to its nonce.

        Raises:
            ValueError: malformed, or another commitment than before.
        """

        def make() -> bytes:
            if len(nonce_commitment) != COMMITMENT_BYTES:
                raise ValueError(f"nonce: expected a {COMMITMENT_BYTES}-byte commitment")
            self._committed = nonce_commitment
            return commitment(self._noise_key)

        return self._rounds.answer("commitment", nonce_commitment, make)

    @property
    def noise(self) -> Integers:
        """The noise (cells x labels,) for the owner's own record; empty until drawn."""
        return self._noise.copy()

    def noise_message(self, nonce: bytes, epsilon_micro: int | None) -> bytes:
        """Return the encrypted noise. Spends epsilon.

        Guarantee:
            What the evaluator can open afterwards are the cell x label counts plus this noise:
            epsilon-DP under adding or removing one patient.
        Assumes:
            One row per patient. Somebody debited epsilon before (the owner's ledger). The noise
            key or the nonce is random.
        Proof:
            A patient is in one place of the table, so its L1 sensitivity is 1 and two-sided
            geometric noise gives epsilon (`noise`). The key was committed to before the nonce was
            known and the round is answered once, so nobody chooses the draw and there is one.

        Args:
            nonce: the evaluator's, which opens its commitment.
            epsilon_micro: epsilon in millionths.

        Raises:
            ValueError: a nonce that does not open the commitment, a malformed epsilon, or other
                ones than before.
        """
        table = Table("target", self._layout.cells * self._layout.labels, epsilon_micro)
        tables = checked_tables([table], self._allow_exact)
        request = nonce + json.dumps(epsilon_micro).encode()
        return self._rounds.answer("noise", request, lambda: self._encrypted(nonce, tables))

    def _encrypted(self, nonce: bytes, tables: Sequence[Table]) -> bytes:
        check_nonces([nonce], [self._committed])
        noise = table_noise(self._noise_key, self._run_id, (nonce, NO_DEVELOPER), tables)
        public_key = self._holder.public.public_key
        part = encrypted_noise(public_key, self._noise_key, self._run_id, noise)
        self._noise = noise
        return framing.encode(Kind.TARGET_NOISE, [part])

    def checks(self, checks: bytes) -> bytes:
        """Return one masked field element for the noise test.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        kinds = Kind.TARGET_CHECKS, Kind.TARGET_CHECK_REPLIES
        return self._rounds.answer(
            "checks", checks, lambda: check_replies(self._holder, checks, *kinds, zero_tests=0)
        )

    def replies(self, openings: bytes) -> bytes:
        """Return one masked field element per opening.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        return self._rounds.answer(
            "replies",
            openings,
            lambda: opened_replies(
                self._holder,
                openings,
                len(self._noise),
                Kind.TARGET_OPENINGS,
                Kind.TARGET_REPLIES,
            ),
        )

    def state(self) -> bytes:
        """Return everything needed to go on after a restart. Secret: store it like the key."""
        head = json.dumps({"run_id": self._run_id, "nonce": self._committed.hex()}).encode()
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
        try:
            if plain["run_id"] != self._run_id:
                raise ValueError("state: belongs to another opening")
            self._committed = bytes.fromhex(plain["nonce"])
        except (KeyError, TypeError) as error:
            raise ValueError("state: its head is malformed") from error
        self._noise_key = key
        self._noise = np.frombuffer(noise, "<i8").astype(np.int64)
        self._rounds.restore(entries)
