"""The doubled integer score on encrypted columns: scalar products and nested selects.

A tree node is f = b (R - L) + L for its bit b, right child R and left child L. Subtrees of height 2
are polynomials of degree two in clear coefficients; a bit multiplies the sum of what hangs below it
in all trees at once, and results of three polynomials are added before a single relinearisation.
Two products in sequence are the most the noise budget bears, so trees of depth 4 multiply the bits
of their two upper levels first: b c (R1 - R0) and so on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from secure_eval.integer_model import IntegerModel
from secure_eval.params import PARAMETERS
from secure_eval.sealio import Ciphertext, seal
from secure_eval.strips import weighted_layers
from secure_eval.tree_polynomial import Node, Polynomial, Star, by_bit, height, polynomial

__all__ = ["MAX_DEPTH", "doubled_score", "strip_score"]

MAX_DEPTH = 4

Load = Callable[[int], Ciphertext]


class _Circuit:
    """Evaluates trees on the columns of one block."""

    def __init__(self, load: Load, relin_keys: Any) -> None:
        self._load = load
        self._relin_keys = relin_keys
        self._columns: dict[int, Ciphertext] = {}
        self._pairs: dict[tuple[int, int], Ciphertext] = {}
        self._stars: dict[Star, Ciphertext] = {}
        self._total: Ciphertext | None = None
        self._rest = Polynomial()

    def column(self, index: int) -> Ciphertext:
        """Return a column's ciphertext, kept: trees read the same columns often."""
        if index not in self._columns:
            self._columns[index] = self._load(index)
        return self._columns[index]

    def _linear(self, weights: Mapping[int, int], total: Ciphertext | None) -> Ciphertext | None:
        for index in sorted(weights):
            if weights[index]:
                total = seal().add_scaled(total, self.column(index), weights[index])
        return total

    def _star(self, star: Star) -> tuple[int, Ciphertext]:
        """Return sign and product with sign * product = bit * weighted sum of bits."""
        sign, key = _signed(star)
        if key not in self._stars:
            factor = self._linear(dict(key[1]), None)
            self._stars[key] = seal().times(self.column(key[0]), factor)
        return sign, self._stars[key]

    def _add(self, total: Ciphertext | None, product: Ciphertext, sign: int) -> Ciphertext:
        """Return total + sign * product in total's own memory; product stays as it is."""
        evaluator = seal().evaluator
        if total is None:
            total = seal().copied(product)
            if sign < 0:
                evaluator.negate_inplace(total)
        elif sign < 0:
            evaluator.sub_inplace(total, product)
        else:
            evaluator.add_inplace(total, product)
        return total

    def _ciphertext(self, value: Polynomial) -> Ciphertext:
        """Return a polynomial that is not constant as a ciphertext of two polynomials."""
        total = None
        for star in value.stars():
            sign, product = self._star(star)
            total = self._add(total, product, sign)
        if total is not None:
            total = seal().relinearised(total, self._relin_keys)
        total = self._linear(value.weights, total)
        seal().evaluator.add_plain_inplace(total, seal().constant(value.constant))
        return total

    def _add_product(self, select: Ciphertext, value: Polynomial) -> None:
        self._total = self._add(self._total, seal().times(select, self._ciphertext(value)), 1)

    def _add_base(self, value: Polynomial) -> None:
        """Add a polynomial, taking products that are at hand and leaving the others for the end."""
        for centre, arms in value.stars():
            if _signed((centre, arms))[1] in self._stars:
                sign, product = self._star((centre, arms))
                self._total = self._add(self._total, product, sign)
                for column, _ in arms:
                    del value.pairs[min(centre, column), max(centre, column)]
        self._rest.add(value)

    def _add_times_bit(self, bit: int, step: Polynomial) -> None:
        """Add bit * step, in clear as far as it has degree two."""
        step = step.under_bit(bit)
        if step.has_pairs():
            self._add_product(self.column(bit), step)
        else:
            self._rest.add_times_bit(bit, step)

    def _tall(self, bit: int, right: list[Node], left: list[Node]) -> None:
        """Add b (R - L) + L with R, L of height up to 3.

        With R = sum of c (R1 - R0) + R0 over its bits c, and L likewise over d, it is the sum of
        (b c) (R1 - R0), (d - b d) (L1 - L0), b (sum R0 - sum L0) and sum L0.
        """
        bases = []
        for nodes, other in ((right, False), (left, True)):
            base = _sum_of([node for node in nodes if height(node) == 0])
            for column, (ones, zeros) in by_bit([n for n in nodes if height(n) > 0]).items():
                step, rest = _sum_of(ones), _sum_of(zeros)
                step.add(rest, -1)
                base.add(rest)
                if column == bit:
                    if not other:
                        base.add(step)
                    continue
                self._add_selected(bit, column, other, step.under_bit(column))
            bases.append(base)
        bases[0].add(bases[1], -1)
        self._add_times_bit(bit, bases[0])
        self._add_base(bases[1])

    def _add_selected(self, bit: int, column: int, other: bool, step: Polynomial) -> None:
        """Add (b c) step, or (c - b c) step for the other side."""
        if not any(step.weights.values()) and not step.has_pairs():
            once = Polynomial()
            once.weights[column] = step.constant
            if other:
                self._rest.add(once)
                once.weights[column] = -step.constant
            self._rest.add_times_bit(bit, once)
            return
        key = (min(bit, column), max(bit, column))
        if key not in self._pairs:
            product = seal().times(self.column(key[0]), self.column(key[1]))
            self._pairs[key] = seal().relinearised(product, self._relin_keys)
        select = self._pairs[key]
        if other:
            select = seal().minus(self.column(column), select)
        self._add_product(select, step)

    def total(self, model: IntegerModel) -> tuple[Ciphertext | None, int]:
        """Return the doubled score of a model as a ciphertext and a constant in clear."""
        trees: dict[int, list[Node]] = {}
        for tree in model.trees:
            trees.setdefault(height((tree, 0)), []).append((tree, 0))
        if max(trees, default=0) > MAX_DEPTH:
            raise ValueError(f"model: expected trees of depth up to {MAX_DEPTH}")
        for tall in (3, 4):
            for bit, (right, left) in by_bit(trees.pop(tall, [])).items():
                if tall == MAX_DEPTH:
                    self._tall(bit, right, left)
                else:
                    step, base = _sum_of(right), _sum_of(left)
                    step.add(base, -1)
                    self._add_times_bit(bit, step)
                    self._add_base(base)
                self._stars.clear()
        for nodes in trees.values():
            self._rest.add(_sum_of(nodes))
        for star in self._rest.stars():
            sign, product = self._star(star)
            self._total = self._add(self._total, product, sign)
        if self._total is not None:
            seal().evaluator.relinearize_inplace(self._total, self._relin_keys)
        for index, weight in enumerate(model.weights.tolist()):
            self._rest.weights[index] += 2 * weight
        total = self._total
        for index in sorted(self._rest.weights):
            if self._rest.weights[index]:
                column = self._columns.get(index) or self._load(index)
                total = seal().add_scaled(total, column, self._rest.weights[index])
        return total, self._rest.constant + 2 * model.bias


def _signed(star: Star) -> tuple[int, Star]:
    """Return a sign and the star whose first weight is positive, with star = sign * result."""
    centre, arms = star
    sign = 1 if arms[0][1] > 0 else -1
    return sign, (centre, tuple((column, sign * weight) for column, weight in arms))


def _sum_of(nodes: list[Node]) -> Polynomial:
    """Return twice the sum of nodes of height up to 2."""
    result = Polynomial()
    for node in nodes:
        result.add(polynomial(node, 2))
    return result


def doubled_score(
    model: IntegerModel, load: Load, relin_keys: Any
) -> tuple[Ciphertext | None, int]:
    """Return twice the score on one block as a ciphertext plus a constant in clear.

    Args:
        model: linear, additive or trees of depth up to 4.
        load: returns the ciphertext of a model column.
        relin_keys: SEAL's relinearisation keys.

    Returns:
        A ciphertext of two polynomials, None where the model is constant, and the constant.

    Raises:
        ValueError: a tree deeper than 4.
    """
    return _Circuit(load, relin_keys).total(model)


def strip_score(
    model: IntegerModel, places: Sequence[tuple[int, int]], load: Load
) -> Ciphertext | None:
    """Return twice the weighted columns of a packed set: each strip the partial sum of its own.

    Args:
        model: linear or additive; its bias is left out.
        places: layer and strip of each model column.
        load: returns the ciphertext of a layer.

    Returns:
        A ciphertext of two polynomials, None where the model is constant.

    Raises:
        ValueError: a model with trees, whose bits lie in different strips and never meet.
    """
    if model.trees:
        raise ValueError("model: a packed set is scored by linear and additive models only")
    tools, total = seal(), None
    weights = [2 * weight for weight in model.weights.tolist()]
    for layer, slots in sorted(weighted_layers(places, weights).items()):
        factor = tools.plain_ntt(tools.encoded(slots), len(PARAMETERS.data_primes))
        total = tools.accumulate(total, tools.times_plain(tools.ntt(load(layer)), factor))
    if total is not None:
        tools.evaluator.transform_from_ntt_inplace(total)
    return total
