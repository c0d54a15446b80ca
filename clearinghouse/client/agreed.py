"""What the key agent checks before it pays: that a run is what the request agreed to."""

from collections.abc import Sequence

from clearinghouse.errors import ProtocolError
from clearinghouse.messages.tasks import NoiseTable
from clearinghouse.noise_laws import NoiseLaw, coins_for, rho_of
from secure_eval.layout import Layout
from secure_eval.noise import MIN_EPSILON_MICRO
from secure_eval.nonces import check_nonces

__all__ = ["HISTOGRAM", "check_opened", "check_rho", "check_tables", "runs_in"]

HISTOGRAM = "histogram"
MOST_BINS = 64


def check_opened(nonces: Sequence[bytes], commitments: Sequence[str]) -> None:
    """Check that nonces open their commitments, in hex.

    Raises:
        ProtocolError: They do not.
    """
    try:
        check_nonces(nonces, [bytes.fromhex(item) for item in commitments])
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def check_tables(
    tables: Sequence[NoiseTable], layout: Layout, epsilon_micro: int, law: NoiseLaw = "geometric"
) -> None:
    """Check that a run releases the histogram and each subgroup once, as agreed.

    A patient is in one cell of each table, so the tables' epsilons add. Every table follows the
    request's noise law, with as many coins as its epsilon needs. A run of one model a class
    releases these tables for each class of three or more, the class against the rest.

    Raises:
        ProtocolError: Other tables, other shapes, another sum of epsilons, or another law.
    """
    names = [table.name for table in tables]
    places = _class_places(layout) if runs_in(names) > 1 else [""]
    labels = 2 if len(places) > 1 else layout.labels
    expected = {}
    for place in places:
        expected[f"{HISTOGRAM}{place}"] = 0
        expected |= {f"group{place}:{name}": levels * labels for name, levels in layout.groups}
    if names != list(expected):
        raise ProtocolError(f"a run releases the tables {list(expected)}, no others")
    for table in tables:
        bins, rest = divmod(table.cells, labels)
        if not expected[table.name] and (rest or not 1 <= bins <= MOST_BINS):
            raise ProtocolError(f"a histogram has labels x 1 to {MOST_BINS} bins")
        if expected[table.name] not in (0, table.cells):
            raise ProtocolError(f"the table {table.name} has {expected[table.name]} cells")
    if any(table.epsilon_micro < MIN_EPSILON_MICRO for table in tables):
        raise ProtocolError(f"every table needs an epsilon of {MIN_EPSILON_MICRO} millionths")
    total = sum(table.epsilon_micro for table in tables)
    if total != epsilon_micro:
        raise ProtocolError(
            f"the tables' epsilons sum to {total} millionths; the request says {epsilon_micro}"
        )
    for table in tables:
        if table.coins != coins_for(law, table.epsilon_micro):
            raise ProtocolError(
                f"the table {table.name} has {table.coins} coins a cell; the request's noise law "
                f"is {law}, which gives it {coins_for(law, table.epsilon_micro)}"
            )


def check_rho(tables: Sequence[NoiseTable], rho_micro: int) -> None:
    """Check that a run that the zCDP lane pays for costs what the request says.

    Raises:
        ProtocolError: Its coins cost something else.
    """
    cost = rho_of([table.coins for table in tables]) if rho_micro else 0
    if cost != rho_micro:
        raise ProtocolError(
            f"the run's coins cost {cost} millionths of rho; the request says {rho_micro}"
        )


def runs_in(tables: Sequence[str]) -> int:
    """Number of histograms among the names of tables: the classes of a run, or 1."""
    return sum(name.partition(":")[0] == HISTOGRAM for name in tables)


def _class_places(layout: Layout) -> list[str]:
    """What stands between a table's kind and its attribute: each class of three or more."""
    return [f":{k}" for k in range(layout.labels)] if layout.labels > 2 else [""]
