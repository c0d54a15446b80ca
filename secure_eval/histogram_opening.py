"""From encrypted characters to openings: one linear map for all published cells and checks.

The key holder's character j of label l holds y_l w^(j a) in each row's slot. Times the evaluator's
w^(-j K) it holds y_l w^(j bin), and any sum over hidden bins of row counts is a linear combination
of the 32 slot sums. All published cells and both checks are therefore one integer matrix applied to
the residues of these products (`kernel.combined`), and only what is opened leaves that form.
"""

from collections.abc import Iterator, Sequence
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

__all__ = ["HistogramSums", "histogram_sums"]

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


class HistogramSums:
    """What some blocks add to the openings.

    Sums over cells of the histogram and its checks stay in NTT form at all data primes, constants
    (R, 4) and second polynomials (R, 4, N); those of subgroup cells and their checks are at the
    opening primes, constants (G, 2) and second polynomials (G, 2, N). All are exact sums mod
    primes, so blocks may be added in any order, and come from other processes.
    """

    def __init__(self, cells: int, n_cells: int) -> None:
        """Start with nothing.

        Args:
            cells: cells of the histogram.
            n_cells: cells of all tables.
        """
        low, grouped = PARAMETERS.opening_primes, n_cells - cells
        self._cells, self._n_cells = cells, n_cells
        rows, groups = cells + MAC_OPENINGS, (grouped + MAC_OPENINGS) * (grouped > 0)
        self.constants = np.zeros((rows, _LEVEL), np.int64)
        self.seconds = np.zeros((rows, _LEVEL, _N), np.int64)
        self.group_constants = np.zeros((groups, low), np.int64)
        self.group_seconds = np.zeros((groups, low, _N), np.int64)

    def arrays(self) -> list[NDArray[Any]]:
        """Return all sums, for another process."""
        return [self.constants, self.seconds, self.group_constants, self.group_seconds]

    def add_arrays(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Add the sums of other blocks."""
        for mine, other in zip(self.arrays(), arrays, strict=True):
            moduli = np.array(PARAMETERS.primes[: mine.shape[1]], np.int64)
            shape = (1, -1) + (1,) * (mine.ndim - 2)
            np.add(mine, other, out=mine)
            # the smaller of r and r - prime, as unsigned numbers, is r mod prime
            whole = mine.view(np.uint64)
            np.minimum(whole, whole - moduli.astype(np.uint64).reshape(shape), out=whole)

    def add(self, rows: Integers, matrix: Integers, products: NDArray[np.uint64]) -> None:
        """Add matrix (len(rows), B) times products (B, 2, 4, N) to some rows."""
        for level, prime in enumerate(_DATA):
            # a polynomial's constant coefficient is the mean of its NTT values
            means = products[:, 0, level].sum(axis=1, dtype=np.uint64) % np.uint64(prime)
            means = means.astype(object) * pow(_N, -1, prime) % prime
            constants = combined(matrix, means.astype(np.int64)[:, None], prime)[:, 0]
            seconds = combined(matrix, products[:, 1, level], prime)
            self.constants[rows, level] = (self.constants[rows, level] + constants) % prime
            self.seconds[rows, level] = (self.seconds[rows, level] + seconds) % prime

    def add_group(self, place: int, ciphertext: Ciphertext) -> None:
        """Add a ciphertext of two polynomials to a subgroup cell or check."""
        low = PARAMETERS.opening_primes
        residues = seal().residues(seal().switched(ciphertext, low)).astype(np.int64)
        moduli = np.array(PARAMETERS.primes[:low], np.int64)
        constants = self.group_constants[place] + residues[0, :, 0]
        self.group_constants[place] = constants % moduli
        seconds = self.group_seconds[place] + residues[1]
        self.group_seconds[place] = seconds % moduli[:, None]

    def give(self, batch: OpeningBatch) -> None:
        """Add everything to the openings: back from NTT form, down to the opening primes."""
        checks = self._n_cells + np.arange(MAC_OPENINGS)
        self._give_rows(batch, np.concatenate([np.arange(self._cells), checks]))
        if len(self.group_constants):
            places = np.concatenate([np.arange(self._cells, self._n_cells), checks])
            for index, constant, second in zip(
                places.tolist(), self.group_constants, self.group_seconds, strict=True
            ):
                batch.add_residues(index, constant, second)

    def _give_rows(self, batch: OpeningBatch, indices: Integers) -> None:
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


def _add_groups(
    sums: HistogramSums,
    weights: Integers,
    predicted: NDArray[np.uint64],
    masks: Iterator[Ciphertext],
    relin_keys: Any,
) -> None:
    """Add rows predicted positive per subgroup level and label: one product per cell.

    Args:
        sums: of this block.
        weights: (2, G) of the checks.
        predicted: (2, 4, N) in NTT form.
        masks: of the G cells.
        relin_keys: SEAL's relinearisation keys.
    """
    tools = seal()
    positive = tools.ciphertext(predicted, ntt=True)
    tools.evaluator.transform_from_ntt_inplace(positive)
    positive = tools.switched(positive, _GROUP_LEVEL)

    def multiply(place: int, mask: Ciphertext) -> None:
        product = tools.times(positive, tools.switched(mask, _GROUP_LEVEL))
        tools.evaluator.relinearize_inplace(product, relin_keys)
        sums.add_group(place, product)

    totals: list[Ciphertext | None] = [None] * MAC_OPENINGS
    for cell, mask in zip(range(weights.shape[1]), masks, strict=True):
        for check in range(MAC_OPENINGS):
            totals[check] = tools.add_scaled(totals[check], mask, int(weights[check, cell]))
        multiply(cell, mask)
    for check, total in enumerate(totals):
        multiply(weights.shape[1] + check, total)


def histogram_sums(
    weights: Integers, grid: Grid, model: IntegerModel, block: Block, relin_keys: Any
) -> HistogramSums:
    """Return what one block adds to the openings.

    Args:
        weights: (2, cells) of the openings' checks; (label, published bin), label-major, then the
            subgroup cells.
        grid: hidden bins.
        model: gives the published edges and the decision threshold.
        block: the shift K (N,), B characters per label, and subgroup masks in the order of the
            cells.
        relin_keys: SEAL's relinearisation keys.
    """
    merging = grid.merging(model.bin_edges)
    positive = centred(grid.indicator(model.threshold_bin, grid.bins), _P)[None]
    published, n_cells = len(merging), weights.shape[1]
    shift, characters, masks = block
    cells = len(characters) * published
    sums = HistogramSums(cells, n_cells)
    predicted = np.zeros((2, _LEVEL, _N), np.int64)
    for label, products in enumerate(_products(shift, characters, grid)):
        mine = np.arange(label * published, (label + 1) * published)
        checks = weights[:, mine] @ merging % _P
        matrix = centred(np.concatenate([merging, checks]), _P)
        sums.add(np.concatenate([mine, cells + np.arange(MAC_OPENINGS)]), matrix, products)
        if n_cells > cells:
            predicted += _positive(positive, products)
    if n_cells > cells:
        moduli = np.array(_DATA, np.int64)[None, :, None]
        whole = (predicted % moduli).astype(np.uint64)
        _add_groups(sums, weights[:, cells:], whole, masks, relin_keys)
    return sums


def _positive(matrix: Integers, products: NDArray[np.uint64]) -> Integers:
    """Return matrix (1, B) times products (B, 2, 4, N) as residues (2, 4, N)."""
    result = np.empty((2, _LEVEL, _N), np.int64)
    for level, prime in enumerate(_DATA):
        for polynomial in range(2):
            result[polynomial, level] = combined(matrix, products[:, polynomial, level], prime)[0]
    return result
