"""Duplicates across sources are settled, not guessed: the earliest commitment is paid.

Repeats of canonical rows are facts: every delivered row opens a commitment with a place in the log,
so of two equal rows the earlier committed one is the original. It runs where the rows are, at the
recipient; `valuation.evidence` has the statistics that are hints only.

Equal rows need not be copies. Two patients can look alike in every column; how often this happens
by chance is estimated from repeats inside the original owner's own rows, so copies are only called
where there are more repeats than the coarseness of the columns explains.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ALARM = 1e-6
LIMIT = 0.999
FORFEIT_ABOVE = 0.3
"""Part of a table that has to be copied before its deposit is lost: hospitals share patients."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Rows of one source as the recipient opened them.

    Attributes:
        committed: Log index of the source's row commitment; smaller is earlier.
        rows: Canonical hash of every real row, repeats kept, in the delivery's order.
        shown: Hashes of rows it did not sell, given to be compared with later sources' deliveries:
            without them nobody sees that a thief undersold its victim and sold in its place.
        coverage: Part of the source's records in the ordered cells that it delivered or showed, by
            its published counts, above 0 to 1. Where sources draw rows independently, two
            deliveries from one table overlap by that part only.
    """

    committed: int
    rows: tuple[bytes, ...]
    shown: tuple[bytes, ...] = ()
    coverage: float = 1.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What duplicates mean for one source.

    Attributes:
        paid: Flags, one per row: whether the row is paid for.
        copied: How many rows are copies of an earlier source's.
        chance: How many rows equal another source's without being called copies.
        originals: From which sources how many rows were copied.
        forfeits: Whether the source is a copy for too large a part: then the deposit is lost and
            nothing of the delivery is paid.
        p_value: Least chance, over earlier sources, of as many repeats among honest sources.
    """

    paid: tuple[bool, ...]
    copied: int = 0
    chance: int = 0
    originals: Mapping[str, int] = field(default_factory=dict)
    forfeits: bool = False
    p_value: float = 1.0


def settle_duplicates(
    deliveries: Mapping[str, Delivery],
    *,
    alarm: float = ALARM,
    forfeit_above: float = FORFEIT_ABOVE,
) -> dict[str, Settlement]:
    """Earliest commitment owns a row; later copies are not paid.

    For each pair of sources the later one's repeats are compared with what chance explains
    (`chance_of_repeats`); only repeats less likely than `alarm` are copies. Fewer and smaller
    sources prove less: of 60 rows, 8 copies are enough among 20 sources, 21 between two.

    Guarantee against false charges: two sources that draw from one population independently are
    called copies with a chance below about `alarm` per pair. Hospitals that share patients hold
    equal rows truly twice; the later one is not paid for those. It keeps its deposit and the rest
    of its pay unless the part of its table that repeats the other's, extrapolated from what both
    delivered and taken at its lower 99.9% limit, is above `forfeit_above`.

    Only rows that were delivered or shown can be compared. Drawn in the order of a public hash of
    the row (not of its salted commitment), copies of one table deliver the same rows first.

    Args:
        deliveries: By source.
        alarm: Chance of a false charge per pair, between 0 and 1.
        forfeit_above: Part of the rows, 0 to 1.

    Returns:
        By source, same keys. The result does not depend on their order.

    Raises:
        ValueError: If two sources have one log index or a number is out of range.
    """
    if not 0 < alarm < 1 or not 0 <= forfeit_above <= 1:
        raise ValueError(f"expected 0 < alarm < 1, got {alarm} and {forfeit_above}")
    order = sorted(deliveries, key=lambda name: deliveries[name].committed)
    if len({item.committed for item in deliveries.values()}) < len(order):
        raise ValueError("expected different log indexes")
    if not all(0 < item.coverage <= 1 for item in deliveries.values()):
        raise ValueError("coverage: expected above 0 and at most 1")
    counts = {name: Counter(item.rows + item.shown) for name, item in deliveries.items()}
    pairs = {name: inside_pairs(counts[name]) for name in order}
    result = {}
    for place, name in enumerate(order):
        own = deliveries[name]
        copies: dict[bytes, str] = {}
        equal: set[bytes] = set()
        least, forfeits = 1.0, False
        honest = sum_pairs([pairs[other] for other in order if other != name])
        for earlier in order[:place]:
            shared = set(own.rows) & counts[earlier].keys()
            repeats = sum(row in shared for row in own.rows)
            odds = chance_of_repeats(counts[earlier], len(own.rows), repeats, honest)
            least = min(least, odds)
            equal |= shared
            if odds < alarm:
                part = _at_least(repeats, len(own.rows)) / deliveries[earlier].coverage
                forfeits |= part > forfeit_above
                for row in shared:
                    copies.setdefault(row, earlier)
        copied = sum(row in copies for row in own.rows)
        result[name] = Settlement(
            tuple(row not in copies and not forfeits for row in own.rows),
            copied,
            sum(row in equal for row in own.rows) - copied,
            dict(Counter(copies[row] for row in own.rows if row in copies)),
            forfeits,
            least,
        )
    return result


def _at_least(found: int, of: int) -> float:
    """Lower 99.9% limit of a frequency (Clopper and Pearson, 1934)."""
    from scipy import special  # here and below: a party that receives nothing does not need it

    return float(special.betaincinv(found, of - found + 1, 1 - LIMIT)) if found else 0.0


def inside_pairs(rows: Counter[bytes]) -> tuple[int, int]:
    """Pairs of rows within one source, and how many of these pairs are equal."""
    n = sum(rows.values())
    return n * (n - 1) // 2, sum(count * (count - 1) // 2 for count in rows.values())


def sum_pairs(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Sums of both numbers."""
    return sum(n for n, _ in pairs), sum(equal for _, equal in pairs)


def chance_of_repeats(
    original: Counter[bytes], rows: int, repeats: int, pairs: tuple[int, int]
) -> float:
    """Chance that at least `repeats` of `rows` honest rows equal one of another source's rows.

    A binomial tail. The chance q of one repeat is bounded in two ways, each at its upper 99.9%
    limit, and the smaller bound counts: by the part of the original's rows that equal another one
    of them (leave one out; Clopper and Pearson, 1934), and by the number of the original's rows
    times the frequency of equal pairs inside sources (Poisson; a union bound).

    Args:
        original: The other source's rows.
        rows: Rows of the source in question.
        repeats: How many of them equal one of the original's.
        pairs: Pairs within sources and equal ones among them, the source in question left out, so
            that it cannot excuse itself by repeating its own rows.
    """
    if repeats == 0 or rows == 0:
        return 1.0
    from scipy import special

    n = sum(original.values())
    inside = sum(count for count in original.values() if count > 1)
    q = 1.0 if inside >= n else float(special.betaincinv(inside + 1, n - inside, LIMIT))
    if pairs[0]:
        q = min(q, n * float(special.gammaincinv(pairs[1] + 1, LIMIT)) / pairs[0])
    # P(Binomial(rows, q) >= repeats) = I_q(repeats, rows - repeats + 1)
    return float(special.betainc(repeats, rows - repeats + 1, q))


def clusters(settled: Mapping[str, Settlement]) -> dict[str, str]:
    """By source, the earliest source that it is connected to by copies: the quotient's labels."""
    parent = {name: name for name in settled}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for name in sorted(settled):
        for original in settled[name].originals:
            ends = sorted((root(name), root(original)))
            parent[ends[1]] = ends[0]
    return {name: root(name) for name in settled}
