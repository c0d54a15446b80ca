"""A malicious key holder: what each lie teaches it and what it earns, beside the stated bound.

Bounds (docs/protocol.md): before the checks pass it holds uniform residues and one-time padded
field elements only; a false digit, flag, character, label, share, padding or loud ciphertext is
accepted with odds of about 4e-12; a changed reply with 1e-12. In a run without checks (the opt-out)
the same lies take the model or rewrite the release: measured here too.
"""

from collections.abc import Callable

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, SEED, N, P, Stage, Thief, parts_of, rewritten, solve_weights
from untested import UntestedAgentRun, UntestedScoringRun

from secure_eval import framing
from secure_eval.checked import CheckedScoringRun, UploadChecks
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.comparison import grid
from secure_eval.framing import Kind
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

#: digits that are no one-hots: from them the plain order spells the evaluator's mask
CONSTANTS = (16, 14, 9, 32)
DIGITS = 51
TOP = 53


@pytest.fixture(scope="module")
def thief(key_holder: KeyHolder) -> Thief:
    return Thief(key_holder)


def constant_digits(holder: KeyHolder) -> list[bytes]:
    parts = []
    for constant, radix in zip(CONSTANTS, grid(32).radices, strict=True):
        parts += [holder.encrypted(np.full(N, constant)) for _ in range(radix - 1)]
    return parts


# ------------------------------------------------------- constant digits: the order of the checks


class Theft:
    """The constant-digit attack on one model: a run without checks and one with checks."""

    def __init__(self, holder: KeyHolder, model: IntegerModel) -> None:
        rng = np.random.default_rng(3)
        self.n, self.model, self.holder = 600, model, holder
        self.columns = rng.integers(0, 16, (self.n, len(model.columns)))
        self.labels = rng.integers(0, 2, self.n)
        self.sealed = holder.seal(self.columns, self.labels, 2)
        self.rows = self.columns[self.sealed.order]

    def inputs(self, run_id: str) -> tuple:
        layout = self.sealed.layout
        return (
            self.holder.public_keys(),
            layout,
            self.sealed.blobs,
            self.model,
            range(layout.columns),
            SEED,
            run_id,
            NONCES[0],
        )

    def recovered(self, shares: np.ndarray, masked: np.ndarray) -> int:
        """Weights of the model that the attacker computes exactly."""
        found = solve_weights(shares[: self.n], masked[: self.n], self.rows, CONSTANTS)
        return 0 if found is None else int((found == self.model.weights).sum())

    def lie(self, score: bytes) -> tuple[np.ndarray, bytes]:
        masked = self.holder.vector(memoryview(parts_of(score, Kind.SCORE)[0]), "score")
        zeros = self.holder.encrypted(np.zeros(N, np.int64))
        parts = [bytes(32), *constant_digits(self.holder), zeros, zeros]
        return masked, framing.encode(Kind.DIGITS, parts)


@pytest.fixture(scope="module")
def theft(key_holder: KeyHolder, linear_model: Callable) -> Theft:
    return Theft(key_holder, linear_model(12, seed=1))


def test_constant_digits_take_the_whole_model_from_a_run_without_checks(theft: Theft) -> None:
    server = UntestedScoringRun(*theft.inputs("plain"))
    masked, digits = theft.lie(server.score())
    (part,) = parts_of(server.shares(digits), Kind.SHARES)
    shares = theft.holder.vector(memoryview(part), "share")
    recovered = theft.recovered(shares, masked)
    assert recovered == 12, f"measured {recovered} of 12 weights in the plain order"


def test_constant_digits_take_nothing_from_a_checked_run(theft: Theft, thief: Thief) -> None:
    server = CheckedScoringRun(*theft.inputs("checked"))
    masked, digits = theft.lie(server.score())
    checks = server.early_checks(digits)
    seen = thief.elements(checks, Kind.EARLY_CHECKS)
    replies = thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES)
    with pytest.raises(ValueError, match="EARLY_REPLIES: a test failed; the run is burnt"):
        server.accept_early(replies)
    with pytest.raises(ValueError, match="before the early checks"):
        server.shares(digits)
    # all it ever got: u and three field elements; the same solver finds nothing in them
    for guess in (masked, *(np.full(N, value) for value in seen)):
        assert theft.recovered(guess, masked) <= 1, "bound: chance, 0 of 12 weights"
    # u is uniform whatever the scores: chi-square of 31 degrees of freedom, fixed seed
    counts = np.bincount(masked * 32 // P, minlength=32)
    assert ((counts - N / 32) ** 2 / (N / 32)).sum() < 90


# --------------------------------------------------------------------------- lies in the digits


@pytest.fixture(scope="module")
def stage(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    return Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))


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


def refused_early(stage: Stage, thief: Thief, digits: bytes) -> list[int]:
    checks = stage.early(digits)
    with pytest.raises(ValueError, match="EARLY_REPLIES: a test failed; the run is burnt"):
        stage.server.accept_early(thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES))
    with pytest.raises(ValueError, match="before the early checks"):
        stage.server.shares(digits)
    return thief.elements(checks, Kind.EARLY_CHECKS)


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


# ----------------------------------------------------------------------- lies in the characters


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


def refused_at_the_end(stage: Stage, thief: Thief, characters: bytes) -> None:
    checks = stage.final(characters)
    with pytest.raises(ValueError, match="FINAL_REPLIES: a test failed; the run is burnt"):
        stage.server.accept_final(thief.replies(checks, Kind.FINAL_CHECKS, Kind.FINAL_REPLIES))
    with pytest.raises(ValueError, match="before the final checks"):
        stage.server.openings(characters)


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


# ------------------------------------------------------------------------- lies in the replies


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


# ------------------------------------------- the same lies in a run without checks, and loud noise


def test_without_checks_a_key_holder_rewrites_the_release(
    key_holder: KeyHolder, thief: Thief, linear_model: Callable
) -> None:
    model = linear_model(2).with_edges([0, 16, 32])
    rng = np.random.default_rng(0)
    columns, labels = rng.integers(0, 16, (30, 2)), rng.integers(0, 2, 30)
    sealed = key_holder.seal(columns, labels, 2)
    server = UntestedScoringRun(
        key_holder.public_keys(), sealed.layout, sealed.blobs, model, [0, 1], SEED, "r", NONCES[0]
    )
    agent = UntestedAgentRun(key_holder, sealed.layout, labels[sealed.order], "r", allow_exact=True)
    tables = [Table(name, cells, None) for name, cells in server.table_cells]
    digits = agent.digits(server.score(), tables, COMMITMENTS)
    characters = agent.characters(server.shares(digits), NONCES)

    def moved(parts: list[bytes]) -> None:
        for j in range(1, 32):  # all rows with label 0 half the circle on
            slots = thief.slots(parts[j]) * int(grid(32).powers[16 * j % 32]) % P
            parts[j] = thief.holder.encrypted(slots)

    openings = server.openings(rewritten(characters, Kind.CHARACTERS, moved))
    opened = server.release(agent.replies(openings))
    scores = model.score_columns(columns)
    exact = np.histogram(scores[labels == 0], model.edges)[0]
    assert exact[0] != exact[1]
    assert np.array_equal(opened.counts[0], exact[::-1]), "measured: the release is the liar's"


def test_loud_columns_spell_the_weights_unless_the_upload_is_tested(
    key_holder: KeyHolder, thief: Thief, linear_model: Callable
) -> None:
    model = linear_model(8)
    rng = np.random.default_rng(0)
    columns, labels = rng.integers(0, 16, (40, 8)), rng.integers(0, 2, 40)
    sealed = key_holder.seal(columns, labels, 2)

    def loaded(parts: list[bytes]) -> None:
        for index in range(8):  # noise of column i in coefficients i, i + 8, ...
            thief.loud([index], 138, slice(index, None, 8))(parts)

    blobs = [rewritten(sealed.blobs[0], Kind.UPLOAD_BLOCK, loaded)]
    keys = key_holder.public_keys()
    run = UntestedScoringRun(keys, sealed.layout, blobs, model, range(8), SEED, "loud", NONCES[0])
    (part,) = parts_of(run.score(), Kind.SCORE)
    noise = np.array(thief.noise_of(part), dtype=object).reshape(-1, 8)
    dropped = PARAMETERS.primes[2] * PARAMETERS.primes[3]
    guess = [round(int(total) * dropped / (len(noise) << 139)) for total in noise.sum(axis=0)]
    # the flood of +-2^58, averaged over 1,024 coefficients, leaves a standard deviation of 2.3
    close = int((np.abs(np.array(guess) - model.weights) <= 14).sum())
    assert close == 8, f"measured {close} of 8 weights within 14 of {np.abs(model.weights).max()}"
    # a test of the upload refuses it before any model is evaluated
    checks = UploadChecks(keys, sealed.layout, blobs, SEED, "upload")
    replies = thief.replies(checks.message(), Kind.UPLOAD_CHECKS, Kind.UPLOAD_REPLIES)
    with pytest.raises(ValueError, match="UPLOAD_REPLIES: a test failed"):
        checks.accept(replies)


def test_loud_digits_drown_the_flood_only_without_checks(
    theft: Theft, thief: Thief, stage: Stage
) -> None:
    def share_noise(change: Callable | None) -> int:
        server = UntestedScoringRun(*theft.inputs("noise"))
        agent = CheckedAgentRun(
            theft.holder, theft.sealed.layout, theft.labels[theft.sealed.order], "noise"
        )
        tables = [Table(name, cells, 500_000) for name, cells in server.table_cells]
        digits = agent.digits(server.score(), tables, COMMITMENTS)
        if change is not None:
            digits = rewritten(digits, Kind.DIGITS, change)
        (part,) = parts_of(server.shares(digits), Kind.SHARES)
        return max(map(abs, thief.noise_of(part))).bit_length()

    change = thief.loud([7], 70, slice(77, 78))
    quiet, loud = share_noise(None), share_noise(change)
    assert quiet <= PARAMETERS.flood_bits + 1
    assert loud > PARAMETERS.flood_bits + 1, f"measured 2^{loud} against a flood of 2^58"
    checks = stage.early(rewritten(stage.messages["digits"], Kind.DIGITS, change))
    with pytest.raises(ValueError, match="EARLY_REPLIES: a test failed"):
        stage.server.accept_early(thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES))


def test_honest_ciphertexts_are_far_from_refusal(stage: Stage, later: Stage) -> None:
    """Noise tests need 1 bit of budget; honest ones keep 3, nine standard deviations or more."""
    early = parts_of(stage.early(stage.messages["digits"]), Kind.EARLY_CHECKS)
    final = parts_of(later.final(later.messages["characters"]), Kind.FINAL_CHECKS)
    for part in (early[-1], final[-1]):
        assert 0 <= stage.holder.opened(memoryview(part), "noise test", 3) < P
