"""Sums of shallow trees as polynomials of degree two in their bits; no cryptography."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from secure_eval.integer_model import IntegerTree

__all__ = ["Node", "Polynomial", "Star", "by_bit", "height", "polynomial"]

Node = tuple[IntegerTree, int]
#: a bit and the weighted bits it multiplies
Star = tuple[int, tuple[tuple[int, int], ...]]


def _zeros() -> dict[int, int]:
    return defaultdict(int)


def _no_pairs() -> dict[tuple[int, int], int]:
    return defaultdict(int)


@dataclass(slots=True)
class Polynomial:
    """constant + sum of weights[c] x_c + sum of pairs[c, d] x_c x_d with c < d, for bits x."""

    constant: int = 0
    weights: dict[int, int] = field(default_factory=_zeros)
    pairs: dict[tuple[int, int], int] = field(default_factory=_no_pairs)

    def add(self, other: "Polynomial", sign: int = 1) -> None:
        """Add sign * other."""
        self.constant += sign * other.constant
        for column, weight in other.weights.items():
            self.weights[column] += sign * weight
        for pair, weight in other.pairs.items():
            self.pairs[pair] += sign * weight

    def add_times_bit(self, bit: int, other: "Polynomial") -> None:
        """Add x_bit * other, where other has no pairs but with the bit itself."""
        self.weights[bit] += other.constant
        for column, weight in other.weights.items():
            self._add_pair(bit, column, weight)
        for pair, weight in other.pairs.items():
            if weight and bit not in pair:
                raise ValueError("polynomial: the product would have degree three")
            if weight:
                self._add_pair(*pair, weight)

    def _add_pair(self, left: int, right: int, weight: int) -> None:
        if left == right:
            self.weights[left] += weight
        else:
            self.pairs[min(left, right), max(left, right)] += weight

    def under_bit(self, bit: int) -> "Polynomial":
        """Return a polynomial without pairs of the bit that agrees where the bit is 1."""
        result = Polynomial(self.constant)
        for column, weight in self.weights.items():
            result.weights[column] += weight
        for (left, right), weight in self.pairs.items():
            if bit in (left, right):
                result.weights[left + right - bit] += weight
            else:
                result.pairs[left, right] += weight
        return result

    def has_pairs(self) -> bool:
        """Return whether any pair has a weight other than 0."""
        return any(self.pairs.values())

    def stars(self) -> list[Star]:
        """Return the pairs as few bits times weighted sums of bits (greedy cover).

        Each pair is in one star; the result depends on the polynomial alone.
        """
        left = {pair: weight for pair, weight in self.pairs.items() if weight}
        result = []
        while left:
            degree: dict[int, int] = defaultdict(int)
            for pair in left:
                for column in pair:
                    degree[column] += 1
            centre = min(degree, key=lambda column: (-degree[column], column))
            arms = {pair: weight for pair, weight in left.items() if centre in pair}
            star = sorted((sum(pair) - centre, weight) for pair, weight in arms.items())
            result.append((centre, tuple(star)))
            for pair in arms:
                del left[pair]
        return result


def height(node: Node) -> int:
    """Return the number of splits on the longest way down from a node."""
    tree, index = node
    if tree.column[index] < 0:
        return 0
    return 1 + max(height((tree, int(side[index]))) for side in (tree.left, tree.right))


def polynomial(node: Node, factor: int) -> Polynomial:
    """Return factor times a node of height up to 2."""
    tree, index = node
    column = int(tree.column[index])
    if column < 0:
        return Polynomial(factor * int(tree.value[index]))
    left = polynomial((tree, int(tree.left[index])), factor)
    step = polynomial((tree, int(tree.right[index])), factor)
    step.add(left, -1)
    left.add_times_bit(column, step)
    return left


def by_bit(nodes: Iterable[Node]) -> dict[int, tuple[list[Node], list[Node]]]:
    """Return the right and the left children of inner nodes, grouped by the nodes' column."""
    groups: dict[int, tuple[list[Node], list[Node]]] = {}
    for tree, index in nodes:
        right, left = groups.setdefault(int(tree.column[index]), ([], []))
        right.append((tree, int(tree.right[index])))
        left.append((tree, int(tree.left[index])))
    return dict(sorted(groups.items()))
