"""Compiling a kernel works with and without a place to keep the machine code."""

import numpy as np

from matching import flow
from matching.compiled import compiled


def test_a_function_that_cannot_be_cached_is_compiled_all_the_same() -> None:
    names: dict[str, object] = {}
    # Source without a file: numba finds no place to keep the result, as on a read-only machine.
    exec("def twice(x):\n    return 2 * x\n", names)
    twice = compiled(names["twice"])  # type: ignore[type-var]
    assert twice(21) == 42  # type: ignore[operator]
    assert hasattr(twice, "py_func")


def test_compiled_and_plain_kernels_agree() -> None:
    weight = np.array([[flow.FAR, 3, -1], [2, flow.FAR, 5]])
    optimal, potential = flow.potentials(weight)
    plain, expected = flow.potentials.py_func(weight)  # type: ignore[attr-defined]
    assert optimal is True is plain
    np.testing.assert_array_equal(potential, expected)
    for cell, other in ((0, 1), (0, 2), (1, 0), (1, 2)):
        assert weight[cell, other] + potential[cell] - potential[other] >= 0
    gaining = np.array([[flow.FAR, -3, 0], [2, flow.FAR, 5]])
    assert flow.potentials(gaining)[0] is False
