"""The geometric law: exact probabilities, derived, repeatable, and another law is noticed."""

import math
import secrets
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from secure_eval.agent import encrypted_noise
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table, _thresholds, commitment, geometric, table_noise, total_cells

FALSE_ALARM = 1e-7
NONCES = (b"a" * 16, b"b" * 16)


def law_p_value(values: np.ndarray, epsilon: float) -> float:
    """Chi-square p-value of values against the two-sided geometric law."""
    a = math.exp(-epsilon)
    reach = int(math.log(len(values) / 10) / epsilon)
    support = np.arange(-reach, reach + 1)
    expected = (1 - a) / (1 + a) * a ** np.abs(support) * len(values)
    observed = np.array([(values == v).sum() for v in support])
    tail = len(values) - expected.sum()
    expected = np.append(expected, tail)
    observed = np.append(observed, len(values) - observed.sum())
    return float(stats.chisquare(observed, expected, sum_check=False).pvalue)


@pytest.mark.parametrize("epsilon_micro", [50_000, 500_000, 2_000_000])
def test_the_law_is_geometric(epsilon_micro: int) -> None:
    # fresh randomness: fails by chance with probability about 1e-7
    values = geometric(secrets.token_bytes(17 * 60_000), 60_000, epsilon_micro)
    assert law_p_value(values, epsilon_micro / 1e6) > FALSE_ALARM


def test_noise_of_another_epsilon_is_noticed() -> None:
    values = geometric(secrets.token_bytes(17 * 60_000), 60_000, 600_000)
    assert law_p_value(values, 0.5) < FALSE_ALARM


@pytest.mark.parametrize("epsilon_micro", [1_000, 123_457, 1_000_000, 20_000_000])
def test_probabilities_are_exact_to_the_last_of_128_bits(epsilon_micro: int) -> None:
    thresholds = _thresholds(epsilon_micro)
    assert thresholds[-1] == 1 << 128
    assert list(thresholds) == sorted(thresholds)
    a = math.exp(-epsilon_micro / 1e6)
    for v in range(min(5, len(thresholds) - 1)):
        wanted = 1 - 2 * a ** (v + 1) / (1 + a)
        assert thresholds[v] / 2**128 == pytest.approx(wanted, rel=1e-12)
    # privacy: neighbouring magnitudes differ by exactly the factor exp(epsilon)
    masses = np.diff([0, *thresholds[:40]]).astype(object)
    for left, right in pairwise(masses[1:-1]):
        if right > 1 << 64:
            assert left / right == pytest.approx(1 / a, rel=1e-12)


def test_extreme_bytes_stay_in_range() -> None:
    assert geometric(b"\0" * 17, 1, 1_000_000)[0] == 0
    longest = int(geometric(b"\xff" * 17, 1, 1_000_000)[0])
    assert longest == -(len(_thresholds(1_000_000)) - 1)
    assert longest == geometric(b"\xff" * 17, 1, 1_000_000)[0]


def test_noise_follows_from_key_and_nonces_alone() -> None:
    tables = [Table("histogram", 40, 500_000), Table("group:sex", 4, 250_000)]
    key = b"k" * 32
    noise = table_noise(key, "run", NONCES, tables)
    assert len(noise) == total_cells(tables) == 44
    assert np.array_equal(noise, table_noise(key, "run", NONCES, tables))
    # a golden value: an arbiter's program of any later version must agree
    assert noise[:12].tolist() == GOLDEN
    others = [
        table_noise(b"K" * 32, "run", NONCES, tables),
        table_noise(key, "other", NONCES, tables),
        table_noise(key, "run", (b"A" * 16, NONCES[1]), tables),
        table_noise(key, "run", (NONCES[0], b"B" * 16), tables),
    ]
    assert all(not np.array_equal(noise, other) for other in others)
    # one more table changes nothing in the others
    more = [*tables, Table("group:age", 8, 250_000)]
    assert np.array_equal(table_noise(key, "run", NONCES, more)[:44], noise)


GOLDEN = [2, 0, -3, 0, -1, 1, 1, 0, 1, 1, 0, -2]


def test_exact_tables_have_no_noise() -> None:
    noise = table_noise(b"k" * 32, "run", NONCES, [Table("histogram", 5, None)])
    assert noise.tolist() == [0] * 5


def test_commitment_binds_the_key() -> None:
    assert len(commitment(b"k" * 32)) == 32
    assert commitment(b"k" * 32) != commitment(b"K" * 32)


@pytest.mark.parametrize("epsilon", [0, 999, -1, 10**10])
def test_epsilon_out_of_range_is_refused(epsilon: int) -> None:
    with pytest.raises(ValueError, match="expected epsilon"):
        Table("histogram", 4, epsilon)


def test_malformed_keys_nonces_and_tables_are_refused() -> None:
    table = Table("t", 2, 500_000)
    with pytest.raises(ValueError, match="32-byte key"):
        table_noise(b"k" * 31, "run", NONCES, [table])
    with pytest.raises(ValueError, match="16-byte nonces"):
        table_noise(b"k" * 32, "run", (b"a" * 16, b"b" * 15), [table])
    with pytest.raises(ValueError, match="same name"):
        table_noise(b"k" * 32, "run", NONCES, [table, table])
    with pytest.raises(ValueError, match="at least 1 cell"):
        Table("t", 0, 500_000)


def test_an_arbiter_rebuilds_the_encrypted_noise_from_public_keys(key_holder: KeyHolder) -> None:
    public_key = key_holder.public.public_key
    noise = table_noise(b"k" * 32, "run", NONCES, [Table("t", 30, 300_000)])
    first = encrypted_noise(public_key, b"k" * 32, "run", noise)
    assert first == encrypted_noise(public_key, b"k" * 32, "run", noise)
    steered = noise.copy()
    steered[7] += 1
    assert first != encrypted_noise(public_key, b"k" * 32, "run", steered)
