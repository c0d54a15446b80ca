"""A key holder that follows the protocol and studies what it is sent.

Bound (docs/protocol.md, section 1): u is uniform in every slot, the second polynomial is
re-randomised, noise is flooded; so neither polynomial, nor magnitudes, nor noise says anything of
the weights. The same attacks on what the message would be without these shields take all of them.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from evil import NONCES, SEED, N, P, Thief, eliminated, parts_of

from secure_eval.checked import CheckedScoringRun
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.many_models import doubled_sums
from secure_eval.packing import unpack
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

COLUMNS = 8


@pytest.fixture(scope="module")
def study(key_holder: KeyHolder, linear_model: Callable) -> SimpleNamespace:
    model = linear_model(COLUMNS)
    rng = np.random.default_rng(5)
    table, labels = rng.integers(0, 16, (N, COLUMNS)), rng.integers(0, 2, N)
    sealed = key_holder.seal(table, labels, 2)
    keys = key_holder.public_keys()
    run = CheckedScoringRun(
        keys, sealed.layout, sealed.blobs, model, range(COLUMNS), SEED, "study", NONCES[0]
    )
    (part,) = parts_of(run.score(), Kind.SCORE)
    bare = doubled_sums([model], [range(COLUMNS)], run.upload, 0)[0].astype(np.uint64)
    own = [seal().residues(run.upload.ciphertext(0, j))[1, 0] for j in range(COLUMNS)]
    return SimpleNamespace(
        model=model,
        part=part,
        sent=unpack(part, 2, PARAMETERS.primes[:2], "score"),
        bare=bare,
        own=np.stack(own, axis=1).astype(np.int64),
        scores=2 * model.score_columns(table)[sealed.order],
        masked=key_holder.vector(memoryview(part), "score"),
    )


def solved(study: SimpleNamespace, second: np.ndarray) -> int:
    """Doubled weights that follow from the second polynomial at the first prime."""
    found = eliminated(study.own, second.astype(np.int64), PARAMETERS.primes[0])
    return 0 if found is None else int((found == 2 * study.model.weights[: len(found)]).sum())


def test_the_second_polynomial_gives_the_weights_only_without_randomisation(
    study: SimpleNamespace,
) -> None:
    # `eliminated` leaves out the last unknown, a constant elsewhere
    assert solved(study, study.bare[1, 0]) == COLUMNS - 1, "measured: the whole model, exactly"
    assert solved(study, study.sent[1, 0]) == 0, "measured: 0 weights"


def test_even_the_true_weights_cannot_be_recognised(study: SimpleNamespace) -> None:
    """Who guesses the model right cannot confirm it on the second polynomial."""
    switched = seal().residues(seal().switched(seal().ciphertext(study.bare), 2))
    gap = (study.sent[1, 0].astype(np.int64) - switched[1, 0].astype(np.int64)) % (
        PARAMETERS.primes[0]
    )
    assert (gap == 0).sum() <= 1, "bound: chance, 8192 / q"
    counts = np.bincount(gap * 32 // PARAMETERS.primes[0], minlength=32)
    assert ((counts - N / 32) ** 2 / (N / 32)).sum() < 90


def test_magnitudes_and_order_of_what_is_decrypted_say_nothing(study: SimpleNamespace) -> None:
    ranks = np.argsort(np.argsort(study.masked)), np.argsort(np.argsort(study.scores))
    correlation = abs(float(np.corrcoef(*ranks)[0, 1]))
    # seed fixed, upload random: 6 standard deviations of 1 / sqrt(N)
    assert correlation < 6 / np.sqrt(N), f"measured {correlation:.4f}; bound 0"
    centred = np.where(study.masked > P // 2, study.masked - P, study.masked)
    for values in (np.abs(centred), study.masked % 2, study.masked % 32):
        found = abs(float(np.corrcoef(values, np.abs(study.scores))[0, 1]))
        assert found < 6 / np.sqrt(N)
    # least squares of u on its own columns explains nothing
    fit = np.corrcoef(study.masked, study.scores)[0, 1] ** 2
    assert fit < 36 / N


def test_the_noise_is_that_of_the_flood(study: SimpleNamespace, key_holder: KeyHolder) -> None:
    """Exact noise of all coefficients: uniform in +-2^58, whatever the model."""
    noise = np.array(Thief(key_holder).noise_of(study.part), dtype=object)
    scaled = np.array([float(value) for value in noise]) / 2.0**PARAMETERS.flood_bits
    assert np.abs(scaled).max() < 1 + 2.0**-40
    counts = np.histogram(scaled, 32, (-1, 1))[0]
    assert counts.sum() >= N - 1
    assert ((counts - N / 32) ** 2 / (N / 32)).sum() < 90
