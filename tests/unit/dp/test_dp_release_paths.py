"""Every release path from a table to what leaves its owner, audited as a whole.

    size      a table's number of rows -> ledger -> noise -> size class, leaves and message
    summary   a provider's table -> cells -> ledger -> noise -> canonical bytes -> message
    target    a hospital's table -> cells -> counts + the derived noise of the opening
    score     labels, bins and subgroups -> histogram and group tables + their derived noise

That an encrypted opening equals counts plus this noise, exactly, is proven in the tests of
secure_eval; here its law is judged. Runs of several classes, of a number and under committed coins
are in `test_dp_release_runs`. Bounds are asked for with confidence 1 - 1e-6 for all pairs of a path
together, so a right path fails a test with a probability of at most 1e-6. Each test of a right path
also says how much the audit found: one that finds nothing would pass anything.
"""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, count, product

import httpx
import numpy as np
import pytest
from accusing import CAUGHT, SURE
from diffprivlib.mechanisms import Laplace

from clearinghouse import cells
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.transport import Transport
from clearinghouse.clock import SystemClock
from clearinghouse.rounds.turns import noise_tables
from clearinghouse.schema import Schema, parse_schema
from clearinghouse.tables import Table, from_records
from dp import size as sizes
from dp.audit import audit_release
from dp.noise import geometric
from secure_eval.agent_target import AgentTarget
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table as NoisedTable
from secure_eval.noise import table_noise
from secure_eval.nonces import NO_DEVELOPER, nonce_commitment

MICRO = 1_000_000
LEVEL = ("sex", "age")
GROUPS = (("sex", 2), ("age", 3))
BINS = 4

SCHEMA = parse_schema(
    {
        "name": "small",
        "label": {"name": "disease", "levels": ["0", "1"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "age": {"kind": "number", "low": "20", "high": "90", "cuts": ["45", "65"]},
            "chol": {"kind": "number", "low": "80", "high": "610", "missing": "true"},
        },
        "strata": [["sex"], ["sex", "age"]],
        "subgroups": ["sex", "age"],
    },
    file="small",
)
KINDS = tuple(
    {"sex": sex, "age": age, "chol": None, "disease": label}
    for sex, age, label in product(("F", "M"), ("30", "50", "70"), ("0", "1"))
)
"""One record for each of the 12 places of the finest level."""


def table(*kinds: int) -> Table:
    """Rows of these kinds; none at all is an empty table."""
    made = from_records(SCHEMA, [KINDS[kind] for kind in (*kinds, 0)], file="made")
    return made.take(range(len(kinds)))


BODY = (0, 0, 0, 1, 1, 4, 4, 4, 4, 6, 7, 7, 10, 11, 11, 11)
PAIRS = {
    "one more in a full cell": (table(*BODY), table(*BODY, 4)),
    "the first in an empty cell": (table(*BODY), table(*BODY, 9)),
    "the only row of the table": (table(), table(3)),
}
FULL = {"full": PAIRS["one more in a full cell"]}


# ---------------------------------------------------------------- the paths


@pytest.fixture(scope="module")
def owners(in_memory) -> Iterator:
    """Makes fresh providers: own directory, own ledger, a registered source of size class 32.

    A new owner is a copy of one that has an empty ledger.
    """
    numbers = count()

    def made(name: str, rows: Table, epsilon_micro: int, *, noised: bool) -> Provider:
        keystore = Keystore.open(in_memory / name)
        terms = SourceTerms(32, 2 * MICRO, epsilon_micro, epsilon_micro)
        if noised:
            terms = replace(terms, size_class=None, epsilon_size_micro=epsilon_micro)
        transport = Transport("http://127.0.0.1:9", keystore.signing_key, SystemClock(), client)
        return Provider("owner", keystore, transport, rows, terms)

    def make(rows: Table, epsilon_micro: int = MICRO, *, noised: bool = False) -> Provider:
        blank = f"blank {epsilon_micro} {noised}"
        if not (in_memory / blank).exists():
            first = made(blank, rows, epsilon_micro, noised=noised)
            source = {"source_id": "src_" + "0" * 20, "rows_root": "0" * 64}
            first.keystore.remember("source", source)
            assert first.budget.spent == 0
        name = str(next(numbers))
        shutil.copytree(in_memory / blank, in_memory / name)
        return made(name, rows, epsilon_micro, noised=noised)

    with httpx.Client() as client:
        yield make


def target_counts(rows: Table, epsilon_micro: int = MICRO) -> np.ndarray:
    """What the opening of a target shows, from a key that was made as the hospital makes it."""
    places = cells.n_places(SCHEMA, LEVEL)
    key = secrets.token_bytes(32)
    nonces = (secrets.token_bytes(16), bytes(16))
    noise = table_noise(key, "run", nonces, [NoisedTable("target", places, epsilon_micro)])
    return cells.counts(rows, LEVEL) + noise


def score_tables(rows: Table) -> list[np.ndarray]:
    """The exact tables of a score run: a fixed model puts a patient into a bin by age and sex."""
    codes = {name: SCHEMA.stratum_codes(rows, name) for name, _ in GROUPS}
    bins = np.minimum(codes["age"] + codes["sex"], BINS - 1)
    predicted = bins >= 2
    exact = [np.bincount(rows.labels * BINS + bins, minlength=2 * BINS)]
    for name, levels in GROUPS:
        places = (codes[name] * 2 + rows.labels)[predicted]
        exact.append(np.bincount(places, minlength=2 * levels))
    return exact


def score_counts(rows: Table, epsilon_micro: int = MICRO) -> np.ndarray:
    """The same tables with the run's derived noise."""
    tables = [
        NoisedTable(item.name, item.cells, item.epsilon_micro)
        for item in noise_tables(epsilon_micro, 2, BINS, GROUPS)
    ]
    nonces = (secrets.token_bytes(16), secrets.token_bytes(16))
    return np.concatenate(score_tables(rows)) + table_noise(
        secrets.token_bytes(32), "run", nonces, tables
    )


# ---------------------------------------------------------------- right paths pass


def test_source_summary_is_as_private_as_it_says(owners) -> None:
    def publish(rows: Table, epsilon_micro: int = MICRO) -> list[int]:
        message = owners(rows, epsilon_micro).summary()
        assert (message.level, message.epsilon_micro) == (list(LEVEL), epsilon_micro)
        return message.counts

    verdict = audit_release(publish, PAIRS, 1.0, n=100, confidence=SURE)
    assert verdict.passed, verdict
    # at an epsilon that shows in few runs
    verdict = audit_release(
        lambda rows: publish(rows, 3 * MICRO), FULL, 3.0, n=400, confidence=SURE
    )
    assert verdict.passed, verdict
    assert verdict.worst > 0.2, verdict


def test_opened_target_is_as_private_as_it_says() -> None:
    verdict = audit_release(target_counts, PAIRS, 1.0, n=3000, confidence=SURE)
    assert verdict.passed, verdict
    assert min(verdict.bounds.values()) > 0.4  # the audit sees most of what there is


def test_score_tables_together_are_as_private_as_they_say() -> None:
    verdict = audit_release(score_counts, PAIRS, 1.0, n=6000, confidence=SURE)
    assert verdict.passed, verdict
    assert max(verdict.bounds.values()) > 0.2


def test_target_noise_of_the_agent_is_the_audited_law() -> None:
    holder = KeyHolder.generate()
    sealed = holder.seal(np.zeros((2, 0), np.int64), np.array([0, 1]), 2, np.array([0, 5]), 6)
    agent = AgentTarget(holder, sealed.layout, "run")
    nonce = secrets.token_bytes(16)
    agent.commit(nonce_commitment(nonce))
    agent.noise_message(nonce, MICRO)
    tables = [NoisedTable("target", 12, MICRO)]
    law = table_noise(agent._noise_key, "run", (nonce, NO_DEVELOPER), tables)
    np.testing.assert_array_equal(agent.noise, law)


def test_a_summary_that_is_asked_again_shows_nothing_new(owners) -> None:
    owner = owners(table(*BODY))
    first = owner.summary()
    assert [owner.summary() for _ in range(5)] == [first] * 5
    assert owner.budget.spent == MICRO


def test_noised_sizes_are_as_private_as_they_say_and_half_the_noise_is_caught(owners) -> None:
    """n itself, from a table to the message: class and leaves follow from the one number."""

    def publish(rows: Table, epsilon_micro: int = MICRO) -> list[int]:
        size = owners(rows, epsilon_micro, noised=True).size
        assert size.release is not None
        noised = size.release.noised
        assert size.size_class == sizes.size_class(noised, epsilon_micro)
        assert size.leaves == sizes.room(noised, epsilon_micro)
        return [noised, size.size_class, size.leaves]

    pairs = {"one more": PAIRS["the only row of the table"]}
    verdict = audit_release(publish, pairs, 1.0, n=100, confidence=SURE)
    assert verdict.passed, verdict
    law = audit_release(
        lambda n: [sizes.noised_size(n, MICRO)], {"n": (40, 41)}, 1.0, n=3000, confidence=SURE
    )
    assert 0.3 < law.worst <= 1
    under_noised = audit_release(
        lambda n: [sizes.noised_size(n, 2 * MICRO)], {"n": (40, 41)}, 1.0, n=3000, confidence=CAUGHT
    )
    assert under_noised.worst > 1
    owner = owners(table(*BODY), noised=True)
    assert [owner.size for _ in range(3)] == [owner.size] * 3
    assert owner.budget.spent == MICRO


# ---------------------------------------------------------------- planted faults are caught


@pytest.mark.parametrize(("times", "n"), [(4, 450), pytest.param(2, 4000, marks=pytest.mark.long)])
def test_too_little_noise_is_caught_in_a_summary(owners, times, n) -> None:
    """A quarter of the noise; half of it in thousands of runs."""

    def publish(rows: Table) -> list[int]:
        return owners(rows, times * MICRO).summary().counts

    assert not audit_release(publish, FULL, 1.0, n=n, confidence=CAUGHT).passed


@pytest.mark.parametrize("path", [target_counts, score_counts])
def test_half_the_noise_is_caught_in_what_is_opened(path) -> None:
    under_noised = audit_release(
        lambda rows: path(rows, 2 * MICRO), FULL, 1.0, n=6000, confidence=CAUGHT
    )
    assert under_noised.worst > 1, under_noised


def test_a_patient_in_two_cells_is_caught() -> None:
    """Counting a patient in its own stratum and in the total, with noise for one cell."""

    def publish(rows: Table) -> np.ndarray:
        exact = cells.counts(rows, LEVEL)
        return geometric(np.append(exact, [exact.sum()] * 3), 1)

    assert not audit_release(publish, FULL, 1.0, n=2000, confidence=CAUGHT).passed


def test_float_noise_is_caught_by_the_grid() -> None:
    laplace = Laplace(epsilon=1.0, sensitivity=1)

    def publish(rows: Table) -> list[float]:
        return [laplace.randomise(float(value)) for value in cells.counts(rows, LEVEL)]

    verdict = audit_release(publish, PAIRS, 1.0, n=300, confidence=SURE)
    assert verdict.off_grid > 0
    assert not verdict.passed


def test_silent_empty_cells_are_caught_by_the_empty_pair_only() -> None:
    def publish(rows: Table) -> np.ndarray:
        exact = cells.counts(rows, LEVEL)
        return np.where(exact == 0, 0, geometric(exact, 1))

    pairs = {name: pair for name, pair in PAIRS.items() if name != "the only row of the table"}
    verdict = audit_release(publish, pairs, 1.0, n=1000, confidence=SURE)
    assert verdict.bounds["one more in a full cell"] <= 1
    assert verdict.bounds["the first in an empty cell"] > 2
    assert not verdict.passed


# ---------------------------------------------------------------- sensitivity, without chance


def test_every_neighbour_of_every_small_table_differs_by_one_in_each_table() -> None:
    """Exhaustive: all multisets of up to three of the 12 kinds, each row taken out in turn.

    A patient is in one place of a summary and of a target at every level, in one cell of the score
    histogram, and in at most one cell of each group table; and n differs by one. So a run's tables
    together cost the sum of their epsilons, and in the zCDP lane the sum of their rhos.
    """
    checked = 0
    for size in (1, 2, 3):
        for kinds in combinations_with_replacement(range(len(KINDS)), size):
            whole = table(*kinds)
            for gone in range(size):
                rest = whole.take([row for row in range(size) if row != gone])
                for level in SCHEMA.strata_levels():
                    apart = cells.counts(whole, level) - cells.counts(rest, level)
                    assert sorted(apart)[-2:] in ([0, 1], [1])
                    assert np.abs(apart).sum() == 1
                assert whole.n - rest.n == 1
                one, *groups = (
                    np.abs(more - fewer).sum()
                    for more, fewer in zip(score_tables(whole), score_tables(rest), strict=True)
                )
                assert one == 1
                assert set(groups) <= {0, 1}
                checked += 1
    assert checked == 12 + 2 * 78 + 3 * 364


def test_the_epsilons_of_a_score_run_add_up_to_what_is_paid() -> None:
    for epsilon, groups in product((MICRO, 333_333, 7_000), (GROUPS, (), (("sex", 2),) * 3)):
        tables = noise_tables(epsilon, 2, BINS, groups)
        assert sum(item.epsilon_micro for item in tables) == epsilon


def test_summary_level_and_cost_do_not_depend_on_the_rows(owners) -> None:
    seen = {
        (tuple(message.level), len(message.counts), message.epsilon_micro)
        for message in (owners(rows).summary() for pair in PAIRS.values() for rows in pair)
    }
    assert seen == {(LEVEL, 12, MICRO)}


def test_schema_of_these_tests_has_the_levels_that_they_count_on() -> None:
    assert isinstance(SCHEMA, Schema)
    assert [cells.n_places(SCHEMA, level) for level in SCHEMA.strata_levels()] == [2, 4, 12]
