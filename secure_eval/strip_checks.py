"""The tests of a packed set's columns, where weights are slots. Protocol sections 0 and 8c.

A partition's forms lie in one strip, in the same slots of several layers, so a product tests it as
that of any set: (sum b_m f_m)^2 - sum b_m^2 f_m for random b has the coefficients f_m^2 - f_m and
2 f_m f_k, so it vanishes for all b only where at most one form is not 0, and that one 1. A round
takes one partition of every strip, each with weights of its own, at the cost of one partition.
Forms that name valid take it from the ciphertext that has it in every strip.

What lies in different strips is tied by sums that need no product: an opening is a sum over slots,
and the same random weight of a row in two strips makes it the weighted difference. So the valid
masks are tied, with the two last slots and everything behind 585 rows empty, and the relations
between bits and cells, labels or levels.

Guarantee: as `upload_checks`: (4 / p)^2; a broken tie passes a test with odds of 2 / p at most (the
    weights of the relations, those of the rows).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval.checks import Terms
from secure_eval.layout import Layout, Upload
from secure_eval.params import PARAMETERS
from secure_eval.sealio import Ciphertext, seal
from secure_eval.strips import STRIP_ROWS, folded, strip

__all__ = ["Drawn", "Form", "StripChecks", "drawn_weights"]

Integers = NDArray[np.int64]
Form = Mapping[int, int]
"""Index of a block's part to its integer coefficient."""

_Sum = tuple[str, int]
"""What a sum is for, and its round."""

_P = PARAMETERS.plain_modulus
_N = PARAMETERS.degree
_LEVEL = len(PARAMETERS.data_primes)
_TIED: _Sum = ("tied", 0)


def drawn_weights(terms: Terms, count: int) -> list[int]:
    """Random weights other than 0, so that no sum is empty."""
    return [max(1, weight) for weight in terms.scalars(count).tolist()]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The random weights of one test.

    Attributes:
        sums: for each sum the weights of the slots (N,) of each ciphertext in it, by its number.
        columns: of each layer, for what must vanish off the valid rows.
        parts: of each part that is no column, in the relations of a row.
        rows: of the rows (585,), in all relations.
        valid: of the slots (N,) of the valid mask itself.
    """

    sums: dict[_Sum, dict[int, Integers]]
    columns: list[int]
    rows: Integers
    valid: Integers
    parts: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class StripChecks:
    """What the columns of a packed set must satisfy."""

    def __init__(
        self,
        layout: Layout,
        partitions: Sequence[Sequence[Form]],
        relations: Sequence[Form],
    ) -> None:
        """Sort the partitions into rounds of one a strip.

        Raises:
            ValueError: a partition lies in several strips, or names a part that is neither a
                column nor the valid mask.
        """
        self._layout, self._relations, self._places = layout, relations, layout.places
        self._rounds: list[list[tuple[int, Sequence[Form]]]] = []
        used: dict[int, int] = defaultdict(int)
        for forms in partitions:
            number = self._strip_of(forms)
            if used[number] == len(self._rounds):
                self._rounds.append([])
            self._rounds[used[number]].append((number, forms))
            used[number] += 1

    def _strip_of(self, forms: Sequence[Form]) -> int:
        named = {part for form in forms for part in form} - {self._layout.valid_part}
        if any(part >= self._layout.columns for part in named):
            raise ValueError("claims: a packed set's partitions name columns and valid only")
        found = {self._places[part][1] for part in named}
        if len(found) != 1:
            raise ValueError("claims: the columns of a partition must share a strip")
        return found.pop()

    def _number(self, part: int) -> int:
        """Return the ciphertext that holds a column, or valid, in its strip."""
        if part == self._layout.valid_part:
            return self._layout.valid_in_strips
        return self._places[part][0]

    def draw(self, terms: Terms) -> Drawn:
        """Draw all weights of one test."""
        sums: dict[_Sum, dict[int, Integers]] = defaultdict(
            lambda: defaultdict(lambda: np.zeros(_N, np.int64))
        )
        for turn, members in enumerate(self._rounds):
            for number, forms in members:
                for form, weight in zip(forms, drawn_weights(terms, len(forms)), strict=True):
                    for part, coefficient in form.items():
                        for name, factor in (("forms", weight), ("squares", weight * weight % _P)):
                            slots = sums[name, turn][self._number(part)][strip(number)]
                            slots += coefficient * factor
        columns = drawn_weights(terms, self._layout.layers)
        in_strips, valid = terms.scalars(_N), terms.scalars(_N)
        sums[_TIED][self._layout.valid_in_strips] += in_strips
        # behind the first strip its weights stay its own: nothing may be there
        valid[:STRIP_ROWS] = -folded(in_strips)[:STRIP_ROWS]
        drawn = Drawn(sums, columns, terms.scalars(STRIP_ROWS), valid)
        self._draw_relations(terms, drawn)
        return drawn

    def _draw_relations(self, terms: Terms, drawn: Drawn) -> None:
        weights = drawn_weights(terms, len(self._relations))
        for form, weight in zip(self._relations, weights, strict=True):
            for part, coefficient in form.items():
                if part >= self._layout.columns:
                    drawn.parts[part] += coefficient * weight
                    continue
                layer, number = self._places[part]
                slots = drawn.sums[_TIED][layer][strip(number)]
                slots += coefficient * weight % _P * drawn.rows % _P

    def add(
        self,
        terms: Terms,
        upload: Upload,
        block: int,
        drawn: Sequence[Drawn],
        tied: Sequence[Ciphertext | None],
    ) -> None:
        """Add all tests of a block's columns.

        Args:
            terms: takes them.
            upload: the sealed set.
            block: which block.
            drawn: the weights of each test.
            tied: for each test the sum of the parts weighted by `Drawn.parts`.
        """
        tools, layout = seal(), self._layout
        sums, columns = self._sums(terms, upload, block, drawn)
        absent = self._absent(upload, block)
        for test, weights in enumerate(drawn):
            for turn in range(len(self._rounds)):
                product = tools.squared(sums[test, ("forms", turn)])
                tools.evaluator.sub_inplace(product, sums[test, ("squares", turn)])
                terms.zero(test, product)
            terms.zero(test, tools.times(columns[test], absent))
            terms.fixed(test, sums[test, _TIED])
            valid = upload.ciphertext(block, layout.valid_part)
            terms.fixed(test, tools.times_plain(valid, tools.encoded(weights.valid)))
            if tied[test] is not None:
                rows = np.zeros(_N, np.int64)
                rows[:STRIP_ROWS] = weights.rows
                terms.fixed(test, tools.times_plain(tied[test], tools.encoded(rows)))

    def _sums(
        self, terms: Terms, upload: Upload, block: int, drawn: Sequence[Drawn]
    ) -> tuple[dict[tuple[int, _Sum], Any], list[Any]]:
        """Read each layer once; return each test's weighted sums, and its sum of all columns."""
        tools, layout = seal(), self._layout
        sums: dict[tuple[int, _Sum], Any] = {}
        columns: list[Any] = [None] * len(drawn)
        for number in (*range(layout.layers), layout.valid_in_strips):
            ciphertext = upload.stored(block, number)
            terms.noise([ciphertext])
            transformed = tools.ntt(ciphertext)
            for test, weights in enumerate(drawn):
                for name, factor in _factors(weights, number):
                    term = tools.times_plain(transformed, tools.plain_ntt(factor, _LEVEL))
                    sums[test, name] = tools.accumulate(sums.get((test, name)), term)
                if number < layout.layers:
                    weight = weights.columns[number]
                    columns[test] = tools.add_scaled(columns[test], ciphertext, weight)
        for total in sums.values():
            tools.evaluator.transform_from_ntt_inplace(total)
        return sums, columns

    def _absent(self, upload: Upload, block: int) -> Ciphertext:
        """1 where a strip has no row, and in the two last slots."""
        valid = seal().copied(upload.stored(block, self._layout.valid_in_strips))
        seal().evaluator.negate_inplace(valid)
        seal().evaluator.add_plain_inplace(valid, seal().constant(1))
        return valid


def _factors(drawn: Drawn, number: int) -> Iterator[tuple[_Sum, Any]]:
    """Yield each sum that a ciphertext is in, with its weights there as a plaintext."""
    for name, weights in drawn.sums.items():
        if number in weights and (weights[number] % _P).any():
            yield name, seal().encoded(weights[number])
