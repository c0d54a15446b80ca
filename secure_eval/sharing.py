"""The evaluator's comparison of encrypted digits with its own mask, as a share (section 4).

L = [u' mod D < r' mod D], computed digit by digit from one-hot digits of u' (each list holds all
but the last value, which is one minus the others), two products deep; then (L - g) mod B for a
uniform g, folded into the plaintexts of the top digit: L is scaled by (1 - g mod B) - (-g mod B),
which is 1 or 1 - B, and -g mod B is added.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval.comparison import EvaluatorShare, Grid
from secure_eval.params import PARAMETERS
from secure_eval.sealio import Ciphertext, seal

__all__ = ["shared_comparison"]

Integers = NDArray[np.int64]

_LEVEL = len(PARAMETERS.data_primes)


def _digit(
    one_hot: list[Ciphertext], mine: Integers, scale: Integers | None, equal: bool
) -> tuple[Ciphertext, Ciphertext | None]:
    """Return scale * [digit < mine] and scale * [digit = mine] (None unless asked for).

    Args:
        one_hot: ciphertexts of [digit = j] for all values j but the last.
        mine: (N,) the evaluator's digit.
        scale: (N,) factors mod p, None for 1.
        equal: whether to compute the second.
    """
    tools = seal()
    evaluator = tools.evaluator
    less: Ciphertext | None = None
    same: Ciphertext | None = None
    prefix: Ciphertext | None = None
    for value in range(len(one_hot) + 1):
        slots = (mine == value).astype(np.int64)
        if scale is not None:
            slots = slots * scale
        plain = tools.encoded(slots)
        factor = tools.plain_ntt(plain, _LEVEL)
        if value > 0:
            less = tools.accumulate(less, tools.times_plain(prefix, factor))
        if value == len(one_hot):
            if equal:
                evaluator.sub_inplace(same, tools.times_plain(prefix, factor))
                evaluator.transform_from_ntt_inplace(same)
                evaluator.add_plain_inplace(same, plain)
            break
        term = tools.ntt(one_hot[value])
        if equal:
            same = tools.accumulate(same, tools.times_plain(term, factor))
        prefix = tools.plus(prefix, term) if prefix is not None else term
    evaluator.transform_from_ntt_inplace(less)
    return less, same


def _low_part(
    digits: Iterator[Ciphertext], grid: Grid, mine: EvaluatorShare, relin_keys: Any
) -> tuple[Ciphertext, Ciphertext, Ciphertext]:
    """Return [lower two digits less], [third digit less] and [third digit same]."""
    tools = seal()
    pairs = []
    for place in range(3):
        one_hot = [next(digits) for _ in range(grid.radices[place] - 1)]
        pairs.append(_digit(one_hot, mine.digits[place], None, place > 0))
    lower = tools.relinearised(tools.times(pairs[1][1], pairs[0][0]), relin_keys)
    tools.evaluator.add_inplace(lower, pairs[1][0])
    return lower, pairs[2][0], pairs[2][1]


def shared_comparison(
    digits: Iterator[Ciphertext],
    grid: Grid,
    mine: EvaluatorShare,
    shift: Integers,
    relin_keys: Any,
    proof: tuple[Integers, Integers] | None = None,
) -> list[Ciphertext]:
    """Return the encrypted share (L - g) mod B in every slot, and its authenticator if wanted.

    Args:
        digits: the key holder's one-hot digits, lowest digit first.
        grid: hidden bins.
        mine: the evaluator's own digits, (N,) each.
        shift: (N,) uniform g in 0..B-1.
        relin_keys: SEAL's relinearisation keys.
        proof: (N,) factors and (N,) masks mod p; asks for factor * share + mask as well.
    """
    tools = seal()
    evaluator = tools.evaluator
    start = -shift % grid.bins
    scale = (1 - shift) % grid.bins - start
    lower, third_less, third_same = _low_part(digits, grid, mine, relin_keys)
    top = [next(digits) for _ in range(grid.radices[3] - 1)]
    wanted = [(scale, start)]
    if proof is not None:
        factor, mask = proof
        p = PARAMETERS.plain_modulus
        wanted.append((scale * factor % p, (start * factor + mask) % p))
    result = []
    for factors, offset in wanted:
        less, same = _digit(top, mine.digits[3], factors, equal=True)
        upper = tools.relinearised(tools.times(same, third_same), relin_keys)
        total = tools.times(same, third_less)
        evaluator.add_inplace(total, tools.times(upper, lower))
        evaluator.relinearize_inplace(total, relin_keys)
        evaluator.add_inplace(total, less)
        evaluator.add_plain_inplace(total, tools.encoded(offset))
        result.append(total)
    return result
