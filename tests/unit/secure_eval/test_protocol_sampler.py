"""Our own encryptions of zero: right law, right value, repeatable, never the same twice."""

import secrets
from math import comb

import numpy as np
import tenseal.sealapi as sealapi
from scipy import stats

from secure_eval.keyholder import KeyHolder
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.sampler import ZeroSampler, centred_binomial, ternary
from secure_eval.sealio import seal

N = PARAMETERS.degree
FALSE_ALARM = 1e-7


def test_error_and_secret_follow_their_laws() -> None:
    # fresh randomness; each of the two tests fails by chance with probability 1e-7
    u = np.concatenate([ternary(secrets.token_bytes(N + 256)) for _ in range(20)])
    assert stats.chisquare([(u == v).sum() for v in (-1, 0, 1)]).pvalue > FALSE_ALARM
    e = centred_binomial(secrets.token_bytes(8 * 200_000))
    support = np.arange(-12, 13)
    mass = np.array(
        [sum(comb(21, k) * comb(21, k + d) for k in range(22) if k + d >= 0) for d in support]
    )
    expected = mass / 4**21 * len(e)
    observed = np.array([(e == d).sum() for d in support])
    inside = np.abs(e) <= 12
    assert (~inside).sum() < 200
    scaled = expected * observed.sum() / expected.sum()
    assert stats.chisquare(observed, scaled).pvalue > FALSE_ALARM


def test_the_error_law_test_sees_a_narrower_error() -> None:
    words = np.frombuffer(secrets.token_bytes(8 * 200_000), np.uint64)
    narrow = np.bitwise_count(words & np.uint64((1 << 20) - 1)).astype(int)
    narrow -= np.bitwise_count((words >> np.uint64(20)) & np.uint64((1 << 20) - 1))
    e = centred_binomial(words.tobytes())
    # variances 10 and 10.5 differ by 15 standard errors of either
    assert e.var() > 10.25 > narrow.var()


def phase_error(key_holder: KeyHolder, residues: np.ndarray) -> np.ndarray:
    """c0 + c1 s mod the first prime, centred, by schoolbook sums: the encryption noise."""
    prime = PARAMETERS.primes[0]
    c0, c1 = residues[0, 0], residues[1, 0]
    secret = key_holder._ternary
    long = np.zeros(2 * N, np.int64)
    for index in np.flatnonzero(secret):
        long[index : index + N] += secret[index] * c1
    phase = (c0 + long[:N] - long[N:]) % prime
    return np.where(phase > prime // 2, phase - prime, phase)


def test_full_encryptions_hold_zero_with_small_noise(key_holder: KeyHolder) -> None:
    sampler = ZeroSampler(key_holder.public.public_key, Prg(b"test"))
    for primes in (4, 2):
        residues = sampler.full(primes, "one", primes)
        noise = phase_error(key_holder, residues)
        # u e + e1 s + e0: about sqrt(2 N / 3 * 10.5 * 2) = 340; 12 times that never happens
        assert 100 < noise.std() < 800
        assert np.abs(noise).max() < 4000
        plain = sealapi.Plaintext()
        ciphertext = seal().ciphertext(residues.astype(np.uint64))
        key_holder._decryptor.decrypt(ciphertext, plain)
        assert plain.is_zero()


def test_constants_are_parts_of_full_encryptions(key_holder: KeyHolder) -> None:
    sampler = ZeroSampler(key_holder.public.public_key, Prg(b"test"))
    names = [("opening", index) for index in range(5)]
    for name, (first, second) in zip(names, sampler.constants(2, names), strict=True):
        whole = sampler.full(2, *name)
        assert first == whole[0, :, 0].tolist()
        assert np.array_equal(second, whole[1])


def test_names_and_keys_decide(key_holder: KeyHolder) -> None:
    public_key = key_holder.public.public_key
    sampler = ZeroSampler(public_key, Prg(b"test"))
    again = ZeroSampler(public_key, Prg(b"test"))
    other = ZeroSampler(public_key, Prg(b"Test"))
    first = sampler.full(2, "a", 1)
    assert np.array_equal(first, again.full(2, "a", 1))
    for different in (sampler.full(2, "a", 2), sampler.full(2, "b", 1), other.full(2, "a", 1)):
        assert (first != different).mean() > 0.999
