"""Exact modular kernels against Python integers."""

import numpy as np
import pytest

from secure_eval import kernel
from secure_eval.kernel import centred, combined, product
from secure_eval.params import PARAMETERS


@pytest.mark.parametrize("prime", [PARAMETERS.primes[0], PARAMETERS.primes[-1], 1_032_193])
@pytest.mark.parametrize("one_thread", [True, False])
def test_combined_is_exact(prime: int, one_thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or in tiles, as it is done where BLAS has several threads."""
    monkeypatch.setattr(kernel, "_ONE_THREAD", one_thread)
    rng = np.random.default_rng(prime)
    matrix = rng.integers(-516_096, 516_097, (150, 64))
    residues = rng.integers(0, prime, (64, 700))
    matrix[0], residues[:, :100] = 516_096, prime - 1
    matrix[1], residues[:, 100:200] = -516_096, 0
    wanted = matrix.astype(object) @ residues.astype(object) % prime
    assert np.array_equal(combined(matrix, residues.astype(np.uint64), prime), wanted)


def test_combined_refuses_what_would_not_stay_exact() -> None:
    ones = np.ones((1025, 1), np.int64)
    with pytest.raises(ValueError, match="would not stay exact"):
        combined(np.ones((1, 1025), np.int64), ones, 97)
    with pytest.raises(ValueError, match="would not stay exact"):
        combined(np.full((1, 1), 1 << 20), ones[:1], 97)


@pytest.mark.parametrize("prime", PARAMETERS.primes)
def test_product_is_exact(prime: int) -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, prime, (2, 10_000))
    left[:3], right[:3] = [0, prime - 1, prime - 1], [5, prime - 1, 1]
    wanted = left.astype(object) * right.astype(object) % prime
    assert np.array_equal(product(left, right, prime), wanted)


def test_centred_is_the_nearest_representative() -> None:
    values = centred(np.arange(-30, 30), 7)
    assert values.min() == -3
    assert values.max() == 3
    assert np.array_equal((values - np.arange(-30, 30)) % 7, np.zeros(60))
