"""The evaluator's comparison of encrypted digits with its own mask, as a share mod B.

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


def shared_comparison(
    digits: Iterator[Ciphertext],
    grid: Grid,
    mine: EvaluatorShare,
    shift: Integers,
    relin_keys: Any,
) -> Ciphertext:
    """Return the encrypted share (L - g) mod B in every slot.

    Args:
        digits: the key holder's one-hot digits, lowest digit first.
        grid: hidden bins.
        mine: the evaluator's own digits, (N,) each.
        shift: (N,) uniform g in 0..B-1.
        relin_keys: SEAL's relinearisation keys.
    """
    tools = seal()
    evaluator = tools.evaluator
    start = -shift % grid.bins
    scale = (1 - shift) % grid.bins - start
    last = len(grid.radices) - 1
    less, same = [], []
    for place, radix in enumerate(grid.radices):
        one_hot = [next(digits) for _ in range(radix - 1)]
        pair = _digit(one_hot, mine.digits[place], scale if place == last else None, place > 0)
        less.append(pair[0])
        same.append(pair[1])
    lower = tools.relinearised(tools.times(same[1], less[0]), relin_keys)
    evaluator.add_inplace(lower, less[1])
    upper = tools.relinearised(tools.times(same[3], same[2]), relin_keys)
    total = tools.times(same[3], less[2])
    evaluator.add_inplace(total, tools.times(upper, lower))
    evaluator.relinearize_inplace(total, relin_keys)
    evaluator.add_inplace(total, less[3])
    evaluator.add_plain_inplace(total, tools.encoded(start))
    return total
