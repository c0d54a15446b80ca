"""Statistics on delivered rows and on summaries: what they find, and how often they are wrong."""

from collections.abc import Callable

import numpy as np
import pytest

from valuation.evidence import (
    STATISTICS,
    Evidence,
    alignment,
    auc,
    evidence,
    misaligned,
    outliers,
    suspicions,
)

WIDTH, ROWS, SOURCES, PATIENTS = 8, 60, 20, 150
DRAWS = 6
"""Markets for each fault: 12 liars, 108 for all, and some 900 honest sources for false alarms."""
Table = tuple[np.ndarray, np.ndarray]
FAULTS = (
    *("noise", "constant", "flip40", "flip100", "copy", "laundered", "copy50", "shift"),
    "poisoned",
)


def population(rng: np.random.Generator) -> tuple[list[Table], Table]:
    """Sites with shifts and scales of their own and one relation of label and features."""
    direction = rng.normal(size=WIDTH)
    direction /= np.linalg.norm(direction)

    def draw(n: int, shift: np.ndarray, scale: float) -> Table:
        x = rng.normal(size=(n, WIDTH)) * scale + shift
        return x, (x @ direction * 2 + rng.normal(size=n) * 0.6 > 0).astype(int)

    sites = [
        draw(ROWS, rng.normal(size=WIDTH) * rng.choice([0.1, 0.4, 0.8]), rng.uniform(0.8, 1.2))
        for _ in range(SOURCES)
    ]
    return sites, draw(PATIENTS, np.zeros(WIDTH), 1.0)


def spoil(fault: str, own: Table, other: Table, rng: np.random.Generator) -> Table:
    x, y = own
    half = ROWS // 2
    near = lambda table, scale: table[0] + rng.normal(size=x.shape) * scale  # noqa: E731
    makers: dict[str, Callable[[], Table]] = {
        "noise": lambda: (rng.normal(size=x.shape), rng.integers(0, 2, ROWS)),
        "constant": lambda: (
            np.repeat(x[:3], ROWS // 3, 0) + rng.normal(size=x.shape) * 0.02,
            np.repeat(y[:3], ROWS // 3),
        ),
        "flip40": lambda: (x, np.where(rng.random(ROWS) < 0.4, 1 - y, y)),
        "flip100": lambda: (x, 1 - y),
        "copy": lambda: (near(other, 0.02), other[1]),
        "laundered": lambda: (near(other, 0.35), other[1]),
        "copy50": lambda: (
            np.vstack([near(other, 0.02)[:half], x[half:]]),
            np.r_[other[1][:half], y[half:]],
        ),
        "shift": lambda: (x + 4 * np.eye(WIDTH)[0], y),
        # the labels of one kind of patient only
        "poisoned": lambda: (x, np.where(x[:, 0] > np.quantile(x[:, 0], 0.6), 1 - y, y)),
    }
    return makers[fault]()


def counts(table: Table, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Noised (8 cells, 2 labels): the signs of three features."""
    x, y = table
    exact = np.zeros((8, 2), np.int64)
    np.add.at(exact, ((x[:, :3] > 0) @ [1, 2, 4], y), 1)
    chance = 1 - np.exp(-epsilon)
    return exact + rng.geometric(chance, (8, 2)) - rng.geometric(chance, (8, 2))


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, tuple[float, float, float]]]:
    """By fault, by statistic: AUC, part of bad sources flagged, part of honest sources flagged."""
    result: dict[str, dict[str, tuple[float, float, float]]] = {}
    for index, fault in enumerate(FAULTS):
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(DRAWS):
            rng = np.random.default_rng([seed, index])
            sites, hospital = population(rng)
            bad = rng.choice(np.arange(0, SOURCES, 3), 2, replace=False)
            originals = list(sites)
            for i in bad:
                sites[i] = spoil(fault, originals[i], originals[(i + 1) % SOURCES], rng)
            copied = (
                {(i + 1) % SOURCES for i in bad}
                if "copy" in fault or fault == "laundered"
                else set()
            )
            honest = [i for i in range(SOURCES) if i not in bad and i not in copied]
            table = np.vstack([x for x, _ in sites])
            labels = np.concatenate([y for _, y in sites])
            result_rows = evidence(table, labels, np.repeat(np.arange(SOURCES), ROWS))
            target = counts(hospital, 0.5, rng)
            values = {
                name: np.array([getattr(e, name) for e in result_rows]) for name in STATISTICS
            }
            values["alignment"] = np.array([-alignment(counts(t, 1.0, rng), target) for t in sites])
            for name, value in values.items():
                flags = outliers(value)
                found.setdefault(name, []).append(
                    (auc(value[bad], value[honest]), flags[bad].mean(), flags[honest].mean())
                )
        result[fault] = {
            name: tuple(np.mean(value, axis=0).tolist()) for name, value in found.items()
        }  # type: ignore[misc]
    return result


@pytest.mark.parametrize(
    ("fault", "statistic", "least"),
    [
        ("noise", "label_disagreement", 0.95),
        ("flip40", "label_disagreement", 0.95),
        ("flip100", "label_disagreement", 0.99),
        ("poisoned", "label_disagreement", 0.95),
        ("copy", "near_copies", 0.99),
        ("copy50", "near_copies", 0.99),
        ("laundered", "closeness", 0.95),
        ("constant", "inside_repeats", 0.99),
        ("shift", "shift", 0.95),
    ],
)
def test_recipients_tell_faulty_deliveries(
    measured: dict[str, dict[str, tuple[float, float, float]]],
    fault: str,
    statistic: str,
    least: float,
) -> None:
    assert measured[fault][statistic][0] >= least


def test_false_alarms_are_as_rare_as_stated(
    measured: dict[str, dict[str, tuple[float, float, float]]],
) -> None:
    for statistic in ("label_disagreement", "near_copies", "closeness", "inside_repeats"):
        alarms = np.mean([measured[fault][statistic][2] for fault in FAULTS])
        assert alarms < 0.01
    for fault, statistic in (
        ("copy", "near_copies"),
        ("constant", "inside_repeats"),
        ("flip100", "label_disagreement"),
        ("laundered", "closeness"),
    ):
        assert measured[fault][statistic][1] >= 0.95


def test_alignment_of_summaries_sees_labels_and_little_else(
    measured: dict[str, dict[str, tuple[float, float, float]]],
) -> None:
    """Epsilon 1 per source, 0.5 for the target, 60 rows on 8 cells: the honest figures."""
    seen = {fault: measured[fault]["alignment"][0] for fault in FAULTS}
    assert seen["flip100"] > 0.85
    assert seen["noise"] > 0.7
    assert seen["flip40"] > 0.65
    for blind in ("copy", "laundered", "copy50"):
        assert 0.3 < seen[blind] < 0.7


def test_alignment_is_a_cosine_of_departures_from_independence() -> None:
    table = np.array([[9, 1], [2, 8], [5, 5]])
    assert alignment(table, table) == pytest.approx(1)
    assert alignment(table, 7 * table) == pytest.approx(1)
    assert alignment(table[:, ::-1], table) == pytest.approx(-1)
    assert alignment(np.outer([1, 2, 3], [4, 5]), table) == pytest.approx(0, abs=1e-12)
    assert alignment(-table, table) == 0
    with pytest.raises(ValueError, match="two tables"):
        alignment(table, table[:2])


def test_evidence_on_a_small_table_by_hand() -> None:
    """Two sources on a line; the second copies one row of the first with the other label."""
    table = np.array([[0.0], [10.0], [20.0], [0.0], [31.0], [41.0]])
    labels = np.array([0, 1, 0, 1, 0, 0])
    first, second = evidence(table, labels, [0, 0, 0, 1, 1, 1])
    assert first.label_disagreement == pytest.approx(1 / 3)  # 0 by 0 (1); 10 by 0 (1), 20 by 31 (0)
    assert first.near_copies == second.near_copies == pytest.approx(1 / 3)
    assert first.inside_repeats == 0
    assert evidence(table, labels, [0, 0, 0, 2, 2, 2])[1] == Evidence(
        0.0, 0.0, 0.0, 0.0, 0.0, -1, 0
    )


def test_evidence_ignores_the_order_of_sources_and_rotations() -> None:
    rng = np.random.default_rng(5)
    sites, _ = population(rng)
    table, labels = np.vstack([x for x, _ in sites[:4]]), np.concatenate([y for _, y in sites[:4]])
    owner = np.repeat(np.arange(4), ROWS)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    plain = evidence(table, labels, owner, most=ROWS * 4)
    for other in (evidence(table @ turn, labels, owner, most=ROWS * 4),):
        for a, b in zip(plain, other, strict=True):
            for name in STATISTICS:
                assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-6)
    reversed_owner = evidence(table, labels, 3 - owner, most=ROWS * 4)
    for a, b in zip(plain, reversed_owner[::-1], strict=True):
        assert a.label_disagreement == b.label_disagreement
        assert a.shift == pytest.approx(b.shift)


def test_outliers_and_auc() -> None:
    assert outliers([0.1] * 9 + [0.9]).tolist() == [False] * 9 + [True]
    assert not outliers([0.1, 0.11, 0.12]).any()
    assert outliers([]).tolist() == []
    assert auc([2, 3], [1, 0]) == 1.0
    assert auc([1], [1]) == 0.5
    assert auc([0], [1]) == 0.0
    for call in (lambda: outliers([[1]]), lambda: outliers([1], 0), lambda: auc([], [1])):
        with pytest.raises(ValueError, match="expected"):
            call()
    for arguments in (
        ([[1.0]], [0], [0]),
        ([[1.0], [2.0]], [0], [0, 1]),
        ([[np.inf]] * 2, [0, 0], [0, 1]),
    ):
        with pytest.raises(ValueError, match="expected"):
            evidence(*arguments)


def test_copies_are_held_against_the_later_source_only() -> None:
    rng = np.random.default_rng(7)
    sites, _ = population(rng)
    sites[3] = spoil("copy", sites[3], sites[8], rng)
    sites[5] = spoil("flip100", sites[5], sites[6], rng)
    table, labels = np.vstack([x for x, _ in sites]), np.concatenate([y for _, y in sites])
    found = evidence(table, labels, np.repeat(np.arange(SOURCES), ROWS))
    for committed, guilty, victim in ((range(20), 8, 3), (range(20, 0, -1), 3, 8)):
        grounds = suspicions(found, list(committed))
        assert "near_copies" in grounds[guilty]
        assert grounds[victim] == ()
        assert grounds[5] == ("label_disagreement",)
        assert sum(bool(names) for names in grounds) == 2
    with pytest.raises(ValueError, match="log indexes"):
        suspicions(found, [1])


def test_few_rows_neither_accuse_nor_are_accused() -> None:
    rng = np.random.default_rng(8)
    sites, _ = population(rng)
    sites[5] = spoil("flip100", sites[5], sites[6], rng)
    sites[5] = (sites[5][0][:14], sites[5][1][:14])
    table, labels = np.vstack([x for x, _ in sites]), np.concatenate([y for _, y in sites])
    owner = np.repeat(np.arange(SOURCES), [len(y) for _, y in sites])
    found = evidence(table, labels, owner)
    assert suspicions(found, range(SOURCES), least=15)[5] == ()
    assert suspicions(found, range(SOURCES), least=14)[5] == ("label_disagreement",)
    assert suspicions(found, range(SOURCES), least=99) == ((),) * SOURCES


def test_sampling_errors_widen_the_limit() -> None:
    values = [0.1] * 9 + [0.3]
    assert outliers(values)[9]
    assert not outliers(values, variances=[0.01] * 10)[9]


def test_invented_labels_are_misaligned_and_honest_sources_are_not() -> None:
    flagged, charged = 0, 0
    for seed in range(40):
        rng = np.random.default_rng([seed, 11])
        slope = np.linspace(-2, 2, 12)
        tables = []
        for source in range(10):
            cells = rng.multinomial(150, rng.dirichlet(np.full(12, 8.0)))
            chance = np.full(12, 0.5) if source == 0 else 1 / (1 + np.exp(-slope))
            ill = rng.binomial(cells, chance)
            noise = rng.geometric(1 - np.exp(-1), (2, 12, 2))
            tables.append(np.column_stack([cells - ill, ill]) + noise[0] - noise[1])
        flags = misaligned(tables[:], tables[9])
        flagged += bool(flags[0])
        charged += int(flags[1:].sum())
    assert flagged >= 34
    assert charged / 360 < 0.04
    assert not misaligned(np.array(tables)[:3], tables[9]).any()
    with pytest.raises(ValueError, match="expected"):
        misaligned(tables[0], tables[1])
