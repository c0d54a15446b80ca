"""From encrypted characters to openings: one linear map for all published cells and checks.

The key holder's character j of label l holds y_l w^(j a) in each row's slot. Times the evaluator's
w^(-j K) it holds y_l w^(j bin), and any sum over hidden bins of row counts is a linear combination
of the 32 slot sums. All published cells and both checks are therefore one integer matrix applied to
the residues of these products (`kernel.combined`), and only what is opened leaves that form.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval.comparison import Grid
from secure_eval.integer_model import IntegerModel
from secure_eval.kernel import centred, combined
from secure_eval.layout import MAC_OPENINGS
from secure_eval.opening import OpeningBatch
from secure_eval.params import PARAMETERS
from secure_eval.sealio import Ciphertext, seal

__all__ = ["open_histogram"]

Integers = NDArray[np.int64]
Block = tuple[Integers, list[Iterator[Ciphertext]], Iterator[Ciphertext]]

_P = PARAMETERS.plain_modulus
_N = PARAMETERS.degree
_DATA = PARAMETERS.data_primes
_LEVEL = len(_DATA)
#: products with subgroup masks are taken at three primes: cheaper, and the budget allows it
_GROUP_LEVEL = 3


def _products(
    shift: Integers, characters: list[Iterator[Ciphertext]], grid: Grid
) -> Iterator[NDArray[np.uint64]]:
    """Yield per label the residues (B, 2, 4, N), NTT form, of characters turned by -K."""
    tools = seal()
    turns = grid.characters(-shift)
    factors = [None] + [tools.plain_ntt(tools.encoded(turn), _LEVEL) for turn in turns[1:]]
    for label in characters:
        result = np.empty((grid.bins, 2, _LEVEL, _N), np.uint64)
        for index, (ciphertext, factor) in enumerate(zip(label, factors, strict=True)):
            term = tools.ntt(ciphertext)
            if factor is not None:
                term = tools.times_plain(term, factor)
            result[index] = tools.residues(term)
        yield result


class _Rows:
    """Sums of openings in NTT form: constants (R, 4) and second polynomials (R, 4, N)."""

    def __init__(self, count: int) -> None:
        self.constants = np.zeros((count, _LEVEL), np.int64)
        self.seconds = np.zeros((count, _LEVEL, _N), np.int64)

    def add(self, rows: NDArray[np.int64], matrix: Integers, products: NDArray[np.uint64]) -> None:
        """Add matrix (len(rows), B) times products (B, 2, 4, N) to some rows."""
        for level, prime in enumerate(_DATA):
            # a polynomial's constant coefficient is the mean of its NTT values
            means = products[:, 0, level].sum(axis=1, dtype=np.uint64) % np.uint64(prime)
            means = means.astype(object) * pow(_N, -1, prime) % prime
            constants = combined(matrix, means.astype(np.int64)[:, None], prime)[:, 0]
            seconds = combined(matrix, products[:, 1, level], prime)
            self.constants[rows, level] = (self.constants[rows, level] + constants) % prime
            self.seconds[rows, level] = (self.seconds[rows, level] + seconds) % prime

    def give(self, batch: OpeningBatch, indices: Integers) -> None:
        """Add the rows to openings: back from NTT form, down to the opening primes."""
        tools = seal()
        count = len(indices)
        constants = np.zeros((2, _LEVEL, _N), np.uint64)
        constants[:, :, :count] = self.constants.T
        low = PARAMETERS.opening_primes
        first = tools.residues(tools.switched(tools.ciphertext(constants), low))[0, :, :count]
        for start in range(0, count, 2):
            pair = self.seconds[[start, min(start + 1, count - 1)]].astype(np.uint64)
            carrier = tools.ciphertext(pair, ntt=True)
            tools.evaluator.transform_from_ntt_inplace(carrier)
            second = tools.residues(tools.switched(carrier, low)).astype(np.int64)
            for row in range(start, min(start + 2, count)):
                constant = first[:, row].astype(np.int64)
                batch.add_residues(int(indices[row]), constant, second[row - start])


class _Groups:
    """Predicted-positive rows per subgroup level and label: one product per cell and block."""

    def __init__(self, batch: OpeningBatch, start: int, relin_keys: Any) -> None:
        self._batch = batch
        self._cells = range(start, batch.n_cells)
        self._relin_keys = relin_keys

    def add(self, predicted: NDArray[np.uint64], masks: Iterator[Ciphertext]) -> None:
        """Add a block: predicted (2, 4, N) in NTT form times its masks."""
        tools = seal()
        positive = tools.ciphertext(predicted, ntt=True)
        tools.evaluator.transform_from_ntt_inplace(positive)
        positive = tools.switched(positive, _GROUP_LEVEL)
        totals: list[Ciphertext | None] = [None] * MAC_OPENINGS
        for cell, mask in zip(self._cells, masks, strict=True):
            for check, weights in enumerate(self._batch.weights):
                totals[check] = tools.add_scaled(totals[check], mask, int(weights[cell]))
            self._multiply(cell, positive, mask)
        for check, total in enumerate(totals):
            self._multiply(self._batch.n_cells + check, positive, total)

    def _multiply(self, index: int, positive: Ciphertext, mask: Ciphertext) -> None:
        tools = seal()
        product = tools.times(positive, tools.switched(mask, _GROUP_LEVEL))
        tools.evaluator.relinearize_inplace(product, self._relin_keys)
        self._batch.add(index, product)


def open_histogram(
    batch: OpeningBatch,
    grid: Grid,
    model: IntegerModel,
    blocks: Iterator[Block],
    relin_keys: Any,
) -> None:
    """Add all blocks' counts to a batch of openings.

    Args:
        batch: openings (label, published bin), label-major, then the subgroup cells.
        grid: hidden bins.
        model: gives the published edges and the decision threshold.
        blocks: per block the shift K (N,), B characters per label, and subgroup masks in the
            order of the cells.
        relin_keys: SEAL's relinearisation keys.
    """
    merging = grid.merging(model.bin_edges)
    positive = centred(grid.indicator(model.threshold_bin, grid.bins), _P)[None]
    published = len(merging)
    rows: _Rows | None = None
    for shift, characters, masks in blocks:
        labels = len(characters)
        cells = labels * published
        rows = rows or _Rows(cells + MAC_OPENINGS)
        groups = _Groups(batch, cells, relin_keys) if batch.n_cells > cells else None
        predicted = np.zeros((2, _LEVEL, _N), np.int64)
        for label, products in enumerate(_products(shift, characters, grid)):
            mine = np.arange(label * published, (label + 1) * published)
            checks = batch.weights[:, mine] @ merging % _P
            matrix = centred(np.concatenate([merging, checks]), _P)
            targets = np.concatenate([mine, cells + np.arange(MAC_OPENINGS)])
            rows.add(targets, matrix, products)
            if groups is not None:
                predicted += _positive(positive, products)
        if groups is not None:
            moduli = np.array(_DATA, np.int64)[None, :, None]
            groups.add((predicted % moduli).astype(np.uint64), masks)
    if rows is not None:
        indices = np.concatenate([np.arange(cells), batch.n_cells + np.arange(MAC_OPENINGS)])
        rows.give(batch, indices)


def _positive(matrix: Integers, products: NDArray[np.uint64]) -> Integers:
    """Return matrix (1, B) times products (B, 2, 4, N) as residues (2, 4, N)."""
    result = np.empty((2, _LEVEL, _N), np.int64)
    for level, prime in enumerate(_DATA):
        for polynomial in range(2):
            result[polynomial, level] = combined(matrix, products[:, polynomial, level], prime)[0]
    return result
