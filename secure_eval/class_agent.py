"""The key holder's part in a run of one model for each class: the classes' own runs in step.

Guarantee: as `CheckedAgentRun` for each class; a class whose run ended ends them all, so there is
    one refusal that depends on the key in the whole run, as in a run of one model. What is opened
    is private at the sum of all tables' epsilons, over all classes.
Assumes: as `AgentRun`.
Proof: each class's tables are a release of the same patients (the class against the rest), so
    nothing is disjoint and epsilons add up; each class's noise has a key of its own.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_eval import framing
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Layout
from secure_eval.noise import Table
from secure_eval.one_class import class_run_id, joined_parts, one_class_layout, split_parts

__all__ = ["ClassesAgentRun"]


class ClassesAgentRun:
    """The key holder's side of a `ClassesScoringRun`; the same rounds as `CheckedAgentRun`."""

    def __init__(
        self,
        key_holder: KeyHolder,
        layout: Layout,
        labels: ArrayLike,
        run_id: str,
        *,
        rows_per_block: int | None = None,
        allow_exact: bool = False,
    ) -> None:
        """Start a run of every label with fresh noise keys; arguments as for `AgentRun`."""
        codes = np.asarray(labels, np.int64)
        shape = one_class_layout(layout)
        size = {} if rows_per_block is None else {"rows_per_block": rows_per_block}
        self._runs = [
            CheckedAgentRun(
                key_holder,
                shape,
                (codes == index).astype(np.int64),
                class_run_id(run_id, index),
                allow_exact=allow_exact,
                **size,
            )
            for index in range(layout.labels)
        ]

    @property
    def noise(self) -> NDArray[np.int64]:
        """The noise of all tables in their order; empty until drawn."""
        return np.concatenate([run.noise for run in self._runs])

    def _answered(self, message: bytes, answer: Callable[[CheckedAgentRun, bytes], bytes]) -> bytes:
        parts = split_parts(message, len(self._runs))
        return joined_parts(
            [answer(run, part) for run, part in zip(self._runs, parts, strict=True)]
        )

    def digits(self, score: bytes, tables: Sequence[Table], commitments: Sequence[bytes]) -> bytes:
        """Return message 2 of every class; the tables come class by class."""
        per_class, rest = divmod(len(tables), len(self._runs))
        if rest or not per_class:
            raise ValueError(f"tables: expected as many for each of {len(self._runs)} classes")
        places = {id(run): index * per_class for index, run in enumerate(self._runs)}

        def answer(run: CheckedAgentRun, part: bytes) -> bytes:
            start = places[id(run)]
            return run.digits(part, tables[start : start + per_class], commitments)

        return self._answered(score, answer)

    def early_replies(self, checks: bytes) -> bytes:
        """Return the replies to every class's early checks."""
        return self._answered(checks, CheckedAgentRun.early_replies)

    def characters(self, shares: bytes, nonces: Sequence[bytes]) -> bytes:
        """Return message 4 of every class."""
        return self._answered(shares, lambda run, part: run.characters(part, nonces))

    def final_replies(self, checks: bytes) -> bytes:
        """Return the replies to every class's final checks."""
        return self._answered(checks, CheckedAgentRun.final_replies)

    def replies(self, openings: bytes) -> bytes:
        """Return message 6 of every class."""
        return self._answered(openings, CheckedAgentRun.replies)

    def state(self) -> bytes:
        """Return everything needed to go on after a restart. Secret: store it like the key."""
        return framing.encode(Kind.CLASSES_STATE, [run.state() for run in self._runs])

    def restore(self, state: bytes) -> None:
        """Continue from a state of the same run, or raise ValueError."""
        parts = framing.decode(state, Kind.CLASSES_STATE, [None] * len(self._runs))
        for run, part in zip(self._runs, parts, strict=True):
            run.restore(bytes(part))
