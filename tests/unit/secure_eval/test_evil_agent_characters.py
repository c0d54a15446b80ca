"""A malicious key holder's characters and replies: what each lie earns, beside the stated bound.

Bounds (docs/protocol.md) are those of its digits (`test_evil_agent.py`).
"""

from collections.abc import Callable

import numpy as np
import pytest
from burnt import refused_at_the_end, refused_early
from evil import NONCES, N, P, Stage, Thief, parts_of, rewritten

from secure_eval import framing
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.comparison import grid
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder


@pytest.fixture(scope="module")
def later(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    result = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))
    result.to_characters()
    return result


@pytest.fixture(scope="module")
def another(later: Stage) -> dict[str, bytes]:
    """Messages of another honest run of the same key, set and model."""
    run = Stage(later.holder, later.model)
    run.sealed, run.columns, run.labels = later.sealed, later.columns, later.labels
    run.start("another run")
    run.to_characters()
    run.to_openings()
    run.messages["replies"] = run.agent.replies(run.messages["openings"])
    return run.messages


def character_lies(thief: Thief) -> dict[str, Callable[[list[bytes]], None]]:
    powers = grid(32).powers

    def turned(slot: int, by: int) -> Callable:
        """All characters of a row moved by so many bins, consistently over labels."""

        def apply(parts: list[bytes]) -> None:
            for j in range(1, 32):
                for index in (j, 31 + j):
                    slots = thief.slots(parts[index])
                    slots[slot] = slots[slot] * powers[j * by % 32] % P
                    parts[index] = thief.holder.encrypted(slots)

        return apply

    def swapped(slot: int) -> Callable:
        def apply(parts: list[bytes]) -> None:
            for j in range(1, 32):
                first, second = thief.slots(parts[j]), thief.slots(parts[31 + j])
                first[slot], second[slot] = second[slot].copy(), first[slot].copy()
                parts[j] = thief.holder.encrypted(first)
                parts[31 + j] = thief.holder.encrypted(second)

        return apply

    def ghost(parts: list[bytes]) -> None:
        """A whole well-formed row in an empty slot."""
        for j in range(1, 32):
            thief.set(j, N - 2, int(powers[20 * j % 32]))(parts)

    def scaled(parts: list[bytes]) -> None:
        """Every positive row counted twice."""
        for j in range(32, 63):
            parts[j] = thief.holder.encrypted(2 * thief.slots(parts[j]) % P)

    def reversed_labels(parts: list[bytes]) -> None:
        parts[1:32], parts[32:63] = parts[32:63], parts[1:32]

    return {
        "one character": thief.set(3, 4, 5),
        "another residue": turned(4, 1),
        "half the circle": turned(4, 16),
        "a row's label": swapped(4),
        "all labels": reversed_labels,
        "padding value": thief.set(3, N - 2, 5),
        "a ghost row in padding": ghost,
        "rows counted twice": scaled,
        "share": thief.set(63, 2, 40),
        "share moved by one": lambda parts: thief.set(63, 2, int(thief.slots(parts[63])[2]) + 1)(
            parts
        ),
        "authenticator": thief.set(64, 2, 77),
        "noise in one coefficient": thief.loud([3], 36, slice(77, 78)),
        "noise in every character": thief.loud(range(1, 63), 32, slice(None)),
    }


CHARACTER_LIES = sorted(character_lies(Thief(None)))  # type: ignore[arg-type]


@pytest.mark.parametrize("lie", CHARACTER_LIES)
def test_a_lie_in_the_characters_earns_no_opening(later: Stage, thief: Thief, lie: str) -> None:
    change = character_lies(thief)[lie]
    characters = rewritten(later.messages["characters"], Kind.CHARACTERS, change)
    refused_at_the_end(later, thief, characters)


def test_ciphertexts_of_another_run_are_refused(
    later: Stage, another: dict[str, bytes], thief: Thief
) -> None:
    refused_at_the_end(later, thief, another["characters"])

    def some(parts: list[bytes]) -> None:
        parts[1:32] = parts_of(another["characters"], Kind.CHARACTERS)[1:32]

    refused_at_the_end(later, thief, rewritten(later.messages["characters"], Kind.CHARACTERS, some))


def test_digits_of_another_run_earn_no_share(
    key_holder: KeyHolder, later: Stage, another: dict[str, bytes], thief: Thief
) -> None:
    run = Stage(key_holder, later.model)
    run.sealed, run.columns, run.labels = later.sealed, later.columns, later.labels
    run.start("third run")
    digits = another["digits"]
    refused_early(run, thief, digits)


# ------------------------------------------------------------------------------ lies in the replies


def test_changed_replies_are_never_released(
    later: Stage, another: dict[str, bytes], thief: Thief
) -> None:
    later.final(later.messages["characters"])
    later.server.accept_final(later.agent.final_replies(later.final(later.messages["characters"])))
    openings = later.server.openings(later.messages["characters"])
    honest = thief.elements(openings, Kind.OPENINGS)

    def released(values: list[int]) -> bool:
        reply = framing.encode(Kind.REPLIES, [np.array(values, "<u4").tobytes()])
        try:
            later.server.release(reply)
        except ValueError as error:
            return "the batch check failed" not in str(error)
        return True

    rng = np.random.default_rng(1)
    lies = [[0] * len(honest), rng.permutation(honest).tolist()]
    for index in range(len(honest)):
        for change in (1, P - 1, pow(N, -1, P)):
            lies.append([*honest])
            lies[-1][index] = (honest[index] + change) % P
    lies += [
        [(value + int(change)) % P for value, change in zip(honest, row, strict=True)]
        for row in rng.integers(0, P, (1000, len(honest)))
    ]
    accepted = sum(map(released, lies))
    assert accepted == 0, f"measured {accepted} of {len(lies)}; bound {len(lies)} / p^2 = 1e-9"
    for bad in (another["replies"], another["replies"][:-1]):
        with pytest.raises(ValueError, match="REPLIES"):
            later.server.release(bad)
    # and the honest replies give exactly counts plus its committed noise
    opened = later.server.release(later.agent.replies(openings))
    noise = later.agent.noise.reshape(opened.counts.shape)
    assert np.array_equal(opened.counts, later.plain_counts() + noise)


def test_failing_on_purpose_draws_no_other_noise(later: Stage) -> None:
    """A retry of a run repeats the stored bytes; a fresh run commits to another key."""
    first = later.messages["characters"]
    again = later.agent.characters(later.messages["shares"], NONCES)
    assert again == first
    restored = CheckedAgentRun(
        later.holder, later.sealed.layout, later.labels[later.sealed.order], "run"
    )
    restored.restore(later.agent.state())
    assert restored.characters(later.messages["shares"], NONCES) == first
    with pytest.raises(ValueError, match="already answered for other bytes"):
        restored.characters(later.messages["shares"], (b"m" * 16, NONCES[1]))
    fresh = CheckedAgentRun(
        later.holder, later.sealed.layout, later.labels[later.sealed.order], "run"
    )
    logged = parts_of(later.messages["digits"], Kind.DIGITS)[0]
    assert later.agent.commitment == logged
    assert fresh.commitment != logged, "a redraw needs another commitment than the logged one"


# ------------------------------------------------------------------------------- honest ciphertexts


def test_honest_ciphertexts_are_far_from_refusal(stage: Stage, later: Stage) -> None:
    """Noise tests need 1 bit of budget; honest ones keep 3, nine standard deviations or more."""
    early = parts_of(stage.early(stage.messages["digits"]), Kind.EARLY_CHECKS)
    final = parts_of(later.final(later.messages["characters"]), Kind.FINAL_CHECKS)
    for part in (early[-1], final[-1]):
        assert 0 <= stage.holder.opened(memoryview(part), "noise test", 3) < P
