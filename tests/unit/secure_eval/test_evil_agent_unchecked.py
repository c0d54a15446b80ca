"""A malicious key holder in a run without checks: what it takes there, and not in a checked run.

In a run without checks (the opt-out) the lies of `test_evil_agent.py` take the model or rewrite the
release: measured here.
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

#: digits that are no one-hots: from them the plain order spells the evaluator's mask
CONSTANTS = (16, 14, 9, 32)


def constant_digits(holder: KeyHolder) -> list[bytes]:
    parts = []
    for constant, radix in zip(CONSTANTS, grid(32).radices, strict=True):
        parts += [holder.encrypted(np.full(N, constant)) for _ in range(radix - 1)]
    return parts


# --------------------------------------------------------- constant digits: the order of the checks


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


# ----------------------------------------------------------------------- other lies, and loud noise


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
