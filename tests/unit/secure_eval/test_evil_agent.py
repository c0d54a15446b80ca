"""A malicious key holder's digits: what each lie teaches it and what it earns, beside the bound.

Bounds (docs/protocol.md): before the checks pass it holds uniform residues and one-time padded
field elements only; a false digit, flag, character, label, share, padding or loud ciphertext is
accepted with odds of about 4e-12; a changed reply with 1e-12.
"""

from collections.abc import Callable

import numpy as np
import pytest
from burnt import refused_early
from evil import N, P, Stage, Thief, rewritten

from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.sealio import seal

DIGITS = 51
TOP = 53


def digit_lies(thief: Thief) -> dict[str, Callable[[list[bytes]], None]]:
    def every(change: Callable[[np.ndarray], np.ndarray], indices: range) -> Callable:
        def apply(parts: list[bytes]) -> None:
            for index in indices:
                parts[index] = thief.holder.encrypted(change(thief.slots(parts[index])) % P)

        return apply

    def two_hot(slot: int) -> Callable:
        def apply(parts: list[bytes]) -> None:
            for index in (1, 2):
                thief.set(index, slot, 1)(parts)

        return apply

    def moved(slot: int) -> Callable:
        """The lowest digit of a slot, well formed but another one."""

        def apply(parts: list[bytes]) -> None:
            digit = [int(thief.slots(parts[index])[slot]) for index in range(1, 16)]
            value = (digit.index(1) + 1) % 16 if 1 in digit else 0
            for index in range(1, 16):
                thief.set(index, slot, int(index - 1 == value))(parts)

        return apply

    def top_moved(slot: int, by: int) -> Callable:
        def apply(parts: list[bytes]) -> None:
            thief.set(TOP, slot, int(thief.slots(parts[TOP])[slot]) + by)(parts)

        return apply

    def coefficient(parts: list[bytes]) -> None:
        # what a test of small coefficients sees least of: a difference in one of them
        single = np.zeros(N, np.int64)
        single[5] = 1
        plain: list[int] = seal().encoder.decode_uint64(seal().polynomial(single))
        parts[TOP] = thief.holder.encrypted((thief.slots(parts[TOP]) + np.array(plain)) % P)

    def cancelling(parts: list[bytes]) -> None:
        # 2 and -1 sum to 1: only the products notice
        thief.set(1, 3, 2)(parts)
        thief.set(2, 3, -1)(parts)

    everywhere = slice(None)
    one = slice(77, 78)
    return {
        "constant digits": every(lambda slots: slots * 0 + 14, range(1, 1 + DIGITS)),
        "two-hot": two_hot(3),
        "two-hot in padding": two_hot(N - 1),
        "values that cancel": cancelling,
        "half a digit": thief.set(20, 5, (P + 1) // 2),
        "digit of minus one": thief.set(30, 6, -1),
        "doubled digits": every(lambda slots: 2 * slots, range(16, 31)),
        "false flag": thief.set(52, 5, 1),
        "flag of two": thief.set(52, 5, 2),
        "noise in one coefficient": thief.loud([7], 30, one),
        "noise in all coefficients": thief.loud([7], 26, everywhere),
        "noise in every digit": thief.loud(range(1, 54), 24, everywhere),
        "noise in the top": thief.loud([TOP], 30, one),
        "a digit moved by one": moved(4),
        "a digit moved by one in padding": moved(N - 1),
        "top moved by one": top_moved(4, 1),
        "top moved by one in padding": top_moved(N - 1, 1),
        "every top moved by one": every(lambda slots: slots + 1, range(TOP, TOP + 1)),
        "top of another circle": top_moved(4, 32),
        "one top coefficient": coefficient,
    }


DIGIT_LIES = sorted(digit_lies(Thief(None)))  # type: ignore[arg-type]


@pytest.mark.parametrize("lie", DIGIT_LIES)
def test_a_lie_in_the_digits_earns_no_share(stage: Stage, thief: Thief, lie: str) -> None:
    digits = rewritten(stage.messages["digits"], Kind.DIGITS, digit_lies(thief)[lie])
    seen = refused_early(stage, thief, digits)
    assert len(seen) == 6, "learned: u, five one-time padded elements and its own noise"


def test_padded_elements_say_nothing_and_cannot_be_guessed(stage: Stage, thief: Thief) -> None:
    lie = digit_lies(thief)["two-hot"]
    digits = rewritten(stage.messages["digits"], Kind.DIGITS, lie)
    checks = stage.early(digits)
    seen = thief.elements(checks, Kind.EARLY_CHECKS)
    # whatever it answers, passing needs two masks mod p
    rng = np.random.default_rng(0)
    tries = [seen, [0] * 6, [1] * 6, *rng.integers(0, P, (2000, 6)).tolist()]
    passed = 0
    for guess in tries:
        reply = framing.encode(Kind.EARLY_REPLIES, [np.array(guess, "<u4").tobytes()])
        try:
            stage.server.accept_early(reply)
            passed += 1
        except ValueError:
            continue
    assert passed == 0, f"measured 0 of {len(tries)} guesses; bound 2003 / p^2 = 2e-9"
    # the same lie under another seed shows other elements: they are masks, not messages
    again = stage.early(rewritten(stage.messages["digits"], Kind.DIGITS, lie))
    assert all(
        a != b for a, b in zip(thief.elements(again, Kind.EARLY_CHECKS), seen[:5], strict=False)
    )


def test_a_second_digits_message_meets_no_second_answer(stage: Stage, thief: Thief) -> None:
    stage.early(stage.messages["digits"])
    other = rewritten(stage.messages["digits"], Kind.DIGITS, thief.set(1, 3, 0))
    for message in (other, stage.messages["digits"][:-1], b""):
        with pytest.raises(ValueError, match=r"DIGITS: (this run has already|expected)"):
            stage.server.early_checks(message)
