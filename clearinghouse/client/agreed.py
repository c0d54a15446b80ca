"""What the key agent checks before it pays: that a run is what the request agreed to."""

from collections.abc import Sequence

from clearinghouse.errors import ProtocolError
from clearinghouse.messages.tasks import NoiseTable
from clearinghouse.noise_laws import NoiseLaw, coins_for
from secure_eval.layout import Layout
from secure_eval.noise import MIN_EPSILON_MICRO
from secure_eval.nonces import check_nonces

__all__ = ["HISTOGRAM", "check_opened", "check_tables"]

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
    request's noise law, with as many coins as its epsilon needs.

    Raises:
        ProtocolError: Other tables, other shapes, another sum of epsilons, or another law.
    """
    expected = [f"group:{name}" for name, _ in layout.groups]
    if [table.name for table in tables] != [HISTOGRAM, *expected]:
        raise ProtocolError(f"a run releases the tables {[HISTOGRAM, *expected]}, no others")
    bins, rest = divmod(tables[0].cells, layout.labels)
    if rest or not 1 <= bins <= MOST_BINS:
        raise ProtocolError(f"a histogram has labels x 1 to {MOST_BINS} bins")
    for table, (name, levels) in zip(tables[1:], layout.groups, strict=True):
        if table.cells != levels * layout.labels:
            raise ProtocolError(f"the table of {name} has {levels * layout.labels} cells")
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
