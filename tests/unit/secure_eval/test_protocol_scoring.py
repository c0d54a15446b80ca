"""Homomorphic scores and shares equal the plain integer model, with budget to spare."""

from collections.abc import Callable

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from secure_eval.comparison import grid
from secure_eval.integer_model import Column, IntegerModel, IntegerTree
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import seeded_ciphertext
from secure_eval.params import PARAMETERS
from secure_eval.scoring import doubled_score
from secure_eval.sealio import Ciphertext, seal
from secure_eval.sharing import shared_comparison
from secure_eval.tree_polynomial import Polynomial, polynomial

P = PARAMETERS.plain_modulus
N = PARAMETERS.degree
REQUIRED_BUDGET = 44


def encrypt(key_holder: KeyHolder, slots: np.ndarray) -> Ciphertext:
    return seeded_ciphertext(memoryview(key_holder.encrypted(slots)), "test")


def decrypt(key_holder: KeyHolder, ciphertext: Ciphertext) -> np.ndarray:
    """Slots of a ciphertext; the budget left at the opening primes must suffice for flooding."""
    low = seal().switched(ciphertext, PARAMETERS.opening_primes)
    assert key_holder._decryptor.invariant_noise_budget(low) >= REQUIRED_BUDGET
    plain = sealapi.Plaintext()
    key_holder._decryptor.decrypt(low, plain)
    return np.array(seal().encoder.decode_uint64(plain), np.int64)


def check_score(key_holder: KeyHolder, model: IntegerModel, n: int = 300, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    sizes = [column.size for column in model.columns]
    columns = rng.integers(0, sizes, (n, len(sizes)))
    total, constant = doubled_score(
        model, lambda i: encrypt(key_holder, columns[:, i]), key_holder.public.seal_relin_keys()
    )
    wanted = 2 * model.score_columns(columns)
    got = np.zeros(n, np.int64) if total is None else decrypt(key_holder, total)[:n]
    assert np.array_equal((got + constant) % P, wanted % P)


def test_linear(key_holder: KeyHolder, linear_model: Callable[..., IntegerModel]) -> None:
    check_score(key_holder, linear_model(20, 64))


def test_additive(key_holder: KeyHolder) -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(-8_000, 8_000, 30)
    weights[4] = 0
    columns = tuple(Column.bit_of(i // 5, float(i % 5)) for i in range(30))
    model = IntegerModel(kind="additive", columns=columns, weights=weights, bias=17, n_features=6)
    check_score(key_holder, model)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_random_trees(
    key_holder: KeyHolder, tree_model: Callable[..., IntegerModel], depth: int
) -> None:
    check_score(key_holder, tree_model(5, depth, 7, seed=depth))


def test_trees_that_share_few_bits_and_stop_early(
    key_holder: KeyHolder, tree_model: Callable[..., IntegerModel]
) -> None:
    check_score(key_holder, tree_model(6, 4, 3, seed=11, stop=0.4))


def test_trees_with_tiny_leaves_cancel_without_trouble(
    key_holder: KeyHolder, tree_model: Callable[..., IntegerModel]
) -> None:
    # leaves in -1..1 over few bits: many equal subtrees, constant steps, vanishing products
    for seed in range(3):
        check_score(key_holder, tree_model(3, 4, 4, seed=seed, stop=0.3, leaf=1))


def tree(column: list[int], left: list[int], right: list[int], value: list[int]) -> IntegerTree:
    return IntegerTree(*map(np.array, (column, left, right, value)))


def trees_model(n_bits: int, *trees: IntegerTree) -> IntegerModel:
    columns = tuple(Column.bit_of(i, 0.5) for i in range(n_bits))
    return IntegerModel(
        kind="trees",
        columns=columns,
        weights=np.zeros(n_bits, np.int64),
        bias=0,
        trees=trees,
        n_features=n_bits,
    )


def test_a_tree_with_equal_halves_is_its_half(key_holder: KeyHolder) -> None:
    half = [1, 2, -1, -1, 2, -1, -1]
    column = [0, *half, *half]
    left = [1, 2, 3, -1, -1, 6, -1, -1, 9, 10, -1, -1, 13, -1, -1]
    right = [8, 5, 4, -1, -1, 7, -1, -1, 12, 11, -1, -1, 14, -1, -1]
    value = [0, 0, 0, 5, 7, 0, 11, 13, 0, 0, 5, 7, 0, 11, 13]
    model = trees_model(3, tree(column, left, right, value))
    rows = np.array([[0, 1, 0], [1, 1, 0]])
    assert model.score_columns(rows).tolist() == [11, 11]
    check_score(key_holder, model)


def test_a_constant_tree_needs_no_ciphertext(key_holder: KeyHolder) -> None:
    model = trees_model(1, tree([-1], [-1], [-1], [42]))
    total, constant = doubled_score(model, lambda i: i, None)
    assert total is None
    assert constant == 84


def test_a_tree_too_deep_is_refused(tree_model: Callable[..., IntegerModel]) -> None:
    column = [0, -1, 1, -1, 2, -1, 3, -1, 4, -1, -1]
    left = [1, -1, 3, -1, 5, -1, 7, -1, 9, -1, -1]
    right = [2, -1, 4, -1, 6, -1, 8, -1, 10, -1, -1]
    deep = tree(column, left, right, [0] * 11)
    try:
        model = trees_model(5, deep)
    except ValueError:
        return  # the model itself refuses: just as well
    with pytest.raises(ValueError, match="depth up to 4"):
        doubled_score(model, lambda i: i, None)


def evaluate(value: Polynomial, bits: np.ndarray) -> np.ndarray:
    total = np.full(len(bits), value.constant)
    for column, weight in value.weights.items():
        total = total + weight * bits[:, column]
    for (left, right), weight in value.pairs.items():
        assert left < right
        total = total + weight * bits[:, left] * bits[:, right]
    return total


def test_polynomials_agree_with_trees_on_every_row() -> None:
    bits = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    rng = np.random.default_rng(0)
    for trial in range(200):
        columns = rng.integers(0, 3, 3)
        t = tree(
            [*columns.tolist(), -1, -1, -1, -1],
            [1, 3, 5, -1, -1, -1, -1],
            [2, 4, 6, -1, -1, -1, -1],
            rng.integers(-9, 10, 7).tolist(),
        )
        value = polynomial((t, 0), 3)
        assert np.array_equal(evaluate(value, bits), 3 * t.score_columns(bits))
        under = value.under_bit(trial % 3)
        on = bits[bits[:, trial % 3] == 1]
        assert np.array_equal(evaluate(under, on), evaluate(value, on))
        assert all(trial % 3 not in pair for pair in under.pairs)
        rebuilt = Polynomial(value.constant, value.weights)
        for centre, arms in value.stars():
            for column, weight in arms:
                rebuilt.pairs[min(centre, column), max(centre, column)] += weight
        assert np.array_equal(evaluate(rebuilt, bits), evaluate(value, bits))


@pytest.mark.parametrize("bins", [32, 64])
def test_the_share_is_exact_at_every_kind_of_edge(key_holder: KeyHolder, bins: int) -> None:
    g = grid(bins)
    rng = np.random.default_rng(bins)
    edges = g.edges()
    scores = rng.integers(edges[0], edges[-1], N)
    scores[:1000] = rng.choice(edges[1:-1], 1000)
    scores[1000:2000] = rng.choice(edges[1:], 1000) - 1
    mask = rng.integers(0, P, N)
    mask[:200] = (P - 1 - 2 * scores[:200]) % P
    mask[1000:1200] = (P - 1 - 2 * scores[1000:1200]) % P
    special = [0, 1, g.width - 1, g.width, P - 2, P - 1]
    mask[200:800] = (rng.choice(special, 600) - g.shift) % P
    holder = g.split_masked((2 * scores + mask) % P)
    assert holder.flag.sum() >= 400
    one_hot = (
        encrypt(key_holder, (digit == value).astype(np.int64))
        for radix, digit in zip(g.radices, holder.digits, strict=True)
        for value in range(radix - 1)
    )
    mine = g.split_mask(mask)
    shift = rng.integers(0, bins, N)
    relin = key_holder.public.seal_relin_keys()
    factor, mask_2 = rng.integers(0, P, (2, N))
    shares = shared_comparison(one_hot, g, mine, shift, relin, (factor, mask_2))
    share, proof = (decrypt(key_holder, ciphertext) for ciphertext in shares)
    assert np.array_equal(proof, (share * factor + mask_2) % P)
    assert share.max() < bins
    got = (holder.top - share - mine.top - shift) % bins
    assert np.array_equal(got, np.searchsorted(edges, scores, side="right") - 1)
