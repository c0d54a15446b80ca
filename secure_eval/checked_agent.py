"""The key holder's part in a checked run and in the tests of its upload."""

import numpy as np

from secure_eval import framing
from secure_eval.agent import AgentRun, Rounds
from secure_eval.checks import SCORE_TESTS, ZERO_TESTS
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.packing import OPENING_BYTES
from secure_eval.params import PARAMETERS

__all__ = ["AgentUpload", "CheckedAgentRun", "check_replies"]

#: the noise test is opened without flooding, at the end of the budget
_NOISE_TEST_BUDGET = 1


def check_replies(
    holder: KeyHolder, message: bytes, kind: Kind, reply: Kind, zero_tests: int = ZERO_TESTS
) -> bytes:
    """Return one masked field element per zero test, and one for the noise test.

    Raises:
        ValueError: another number, or an opening of the wrong shape or budget.
    """
    parts = framing.decode(message, kind, [OPENING_BYTES] * (zero_tests + 1))
    budgets = [PARAMETERS.minimum_budget] * zero_tests + [_NOISE_TEST_BUDGET]
    opened = [
        holder.opened(part, f"{kind.name} {index}", budget)
        for index, (part, budget) in enumerate(zip(parts, budgets, strict=True))
    ]
    return framing.encode(reply, [np.array(opened, "<u4").tobytes()])


class CheckedAgentRun(AgentRun):
    """The key holder's side of a `CheckedScoringRun`."""

    _ROUNDS = ("digits", "early_replies", "characters", "final_replies", "replies")

    def early_replies(self, checks: bytes) -> bytes:
        """Return one masked field element per early check.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        return self._rounds.answer(
            "early_replies",
            checks,
            lambda: check_replies(
                self._holder, checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES, SCORE_TESTS
            ),
        )

    def final_replies(self, checks: bytes) -> bytes:
        """Return one masked field element per final check.

        Raises:
            ValueError: a malformed or unexpected message.
        """
        return self._rounds.answer(
            "final_replies",
            checks,
            lambda: check_replies(self._holder, checks, Kind.FINAL_CHECKS, Kind.FINAL_REPLIES),
        )


class AgentUpload:
    """The key holder's side of the tests of a new upload: three openings, once."""

    def __init__(self, key_holder: KeyHolder) -> None:
        self._holder = key_holder
        self._rounds = Rounds(["replies"])

    def replies(self, checks: bytes) -> bytes:
        """Return one masked field element per check.

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        return self._rounds.answer(
            "replies",
            checks,
            lambda: check_replies(self._holder, checks, Kind.UPLOAD_CHECKS, Kind.UPLOAD_REPLIES),
        )

    def state(self) -> bytes:
        """Return what was answered, so that a restart repeats it and answers nothing else."""
        return framing.encode(Kind.UPLOAD_STATE, self._rounds.entries())

    def restore(self, state: bytes) -> None:
        """Continue from a state.

        Raises:
            ValueError: a malformed state.
        """
        parts = framing.decode(state, Kind.UPLOAD_STATE, [None, None])
        self._rounds.restore([bytes(part) for part in parts])
