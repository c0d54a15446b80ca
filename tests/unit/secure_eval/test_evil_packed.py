"""Lies that only a packed set makes possible: what each earns, beside the bound.

Bounds (protocol, section 8c): a false upload passes with odds of (4 / p)^2 = 1.5e-11, digits of
another sum than the strips' with (2 / p)^2 = 4e-12. That the rows of different strips belong
together is no fact that a strip could contradict: the row is what its strips hold.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from burnt import refused_early
from evil import NONCES, SEED, N, P, Stage, Thief, parts_of, rewritten

from secure_eval import framing
from secure_eval.checked import CheckedScoringRun
from secure_eval.checked_agent import AgentUpload
from secure_eval.framing import Kind
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.strips import STRIP_ROWS, STRIPS, folded, strip
from secure_eval.upload_checks import UploadChecks

ROWS = 40
#: a number and its three bits, a category of three levels, values up to more groups than strips
STRIP_SIZES = (1, 3, 3, *[1] * 14)
COLUMNS = sum(STRIP_SIZES)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 100, (ROWS, COLUMNS))
    table[:, 1:4] = np.sort(rng.integers(0, 2, (ROWS, 3)))[:, ::-1]
    levels = rng.integers(0, 3, ROWS)
    table[:, 4:7] = np.eye(3, dtype=np.int64)[levels]
    return table, rng.integers(0, 2, ROWS), levels


@pytest.fixture(scope="module")
def sealed(key_holder: KeyHolder, rows: tuple) -> SealedSet:
    table, labels, levels = rows
    groups = {"level": (levels, 3)}
    return key_holder.seal(table, labels, 2, groups=groups, strips=STRIP_SIZES)


def checks_of(holder: KeyHolder, sealed: SealedSet, blob: bytes) -> UploadChecks:
    """The tests that a schema of this table derives."""
    layout = sealed.layout
    valid, first = layout.valid_part, layout.group_parts("level").start
    relations: list[dict[int, int]] = [{4: 1, 5: 1, 6: 1, valid: -1}]
    relations += [{4 + k: -1, first + 2 * k: 1, first + 2 * k + 1: 1} for k in range(3)]
    return UploadChecks(
        holder.public_keys(),
        layout,
        [blob],
        SEED,
        "upload",
        partitions=[
            [{valid: 1, 1: -1}, {1: 1, 2: -1}, {2: 1, 3: -1}, {3: 1}],
            [{4: 1}, {5: 1}, {6: 1}],
        ],
        relations=relations,
    )


def judged(holder: KeyHolder, sealed: SealedSet, blob: bytes) -> None:
    checks = checks_of(holder, sealed, blob)
    checks.accept(AgentUpload(holder).replies(checks.message()))


def test_an_honest_packed_upload_passes(key_holder: KeyHolder, sealed: SealedSet) -> None:
    assert sealed.layout.layers == 3
    judged(key_holder, sealed, sealed.blobs[0])


Cells = Sequence[tuple[int, int, int]]
"""Number of a ciphertext, slot, and what is added there."""


def place(sealed: SealedSet, column: int, row: int, by: int) -> tuple[int, int, int]:
    layer, number = sealed.layout.places[column]
    return layer, strip(number).start + row, by


def upload_lies(sealed: SealedSet, rows: tuple) -> dict[str, Cells]:
    layout = sealed.layout
    table = rows[0][sealed.order]
    in_strips, valid = layout.valid_in_strips, layout.ciphertext_of(layout.valid_part)
    label = layout.ciphertext_of(layout.label_part(0))
    level = layout.ciphertext_of(layout.group_parts("level").start)
    low = int(np.flatnonzero(table[:, 1] == 0)[0])
    first = int(np.flatnonzero(table[:, 4] == 1)[0])
    strips = [strip(number).start for number in range(STRIPS)]
    return {
        "a bit of two": [place(sealed, 1, 3, 2 - int(table[3, 1]))],
        "descending bits": [place(sealed, 3, low, 1)],
        "two levels": [place(sealed, 5, first, 1)],
        "no level": [place(sealed, 4, first, -1)],
        "another level than the subgroup's": [
            place(sealed, 4, first, -1),
            place(sealed, 6, first, 1),
        ],
        "a value behind the rows": [place(sealed, 0, ROWS, 7)],
        "a value in the last slot": [(2, N - 1, 7)],
        "one row more in one strip": [(in_strips, strips[5] + ROWS, 1)],
        "rows that add up": [(in_strips, strips[1] + 2, -1), (in_strips, strips[2] + 2, 1)],
        "valid in the last slots": [(in_strips, N - 2, 1)],
        "one row more in all strips": [(in_strips, start + ROWS, 1) for start in strips],
        "a row without label": [
            (valid, ROWS, 1),
            *((in_strips, start + ROWS, 1) for start in strips),
        ],
        "a row behind the first strip": [
            (valid, STRIP_ROWS + 5, 1),
            (label, STRIP_ROWS + 5, 1),
            (level, STRIP_ROWS + 5, 1),
        ],
    }


def where_no_column_lies(sealed: SealedSet) -> Cells:
    assert (2, 9) not in sealed.layout.places
    return [(2, strip(9).start + 3, 77)]


LIES = [
    "a bit of two",
    "descending bits",
    "two levels",
    "no level",
    "another level than the subgroup's",
    "a value behind the rows",
    "a value in the last slot",
    "one row more in one strip",
    "rows that add up",
    "valid in the last slots",
    "one row more in all strips",
    "a row without label",
    "a row behind the first strip",
]


def lied(thief: Thief, sealed: SealedSet, cells: Cells) -> bytes:
    def change(parts: list[bytes]) -> None:
        for number in {number for number, _, _ in cells}:
            slots = thief.slots(parts[number])
            for _, slot, by in (cell for cell in cells if cell[0] == number):
                slots[slot] += by
            parts[number] = thief.holder.encrypted(slots % P)

    return rewritten(sealed.blobs[0], Kind.UPLOAD_BLOCK, change)


@pytest.mark.parametrize("lie", LIES)
def test_false_packed_uploads_are_refused(
    key_holder: KeyHolder, thief: Thief, sealed: SealedSet, rows: tuple, lie: str
) -> None:
    blob = lied(thief, sealed, upload_lies(sealed, rows)[lie])
    with pytest.raises(ValueError, match="UPLOAD_REPLIES: a test failed"):
        judged(key_holder, sealed, blob)


def test_replies_to_the_tests_cannot_be_guessed(
    key_holder: KeyHolder, thief: Thief, sealed: SealedSet, rows: tuple
) -> None:
    blob = lied(thief, sealed, upload_lies(sealed, rows)["rows that add up"])
    checks = checks_of(key_holder, sealed, blob)
    seen = thief.elements(checks.message(), Kind.UPLOAD_CHECKS)
    tries = [seen, [0] * 3, *np.random.default_rng(0).integers(0, P, (1000, 3)).tolist()]
    for guess in tries:
        with pytest.raises(ValueError, match="a test failed"):
            checks.accept(framing.encode(Kind.UPLOAD_REPLIES, [np.array(guess, "<u4").tobytes()]))


def test_a_loud_layer_is_refused(key_holder: KeyHolder, thief: Thief, sealed: SealedSet) -> None:
    for number in (0, sealed.layout.valid_in_strips):
        blob = rewritten(
            sealed.blobs[0], Kind.UPLOAD_BLOCK, thief.loud([number], 60, slice(77, 78))
        )
        with pytest.raises(ValueError):
            judged(key_holder, sealed, blob)


def test_exchanged_rows_of_one_strip_are_another_table(
    key_holder: KeyHolder, thief: Thief, sealed: SealedSet, rows: tuple
) -> None:
    """A strip in another order passes, and is what an unpacked table with those rows is.

    Where a relation ties the strip to cells or subgroups it is refused, as of any set.
    """
    table = rows[0][sealed.order]

    def exchanged(column: int) -> Cells:
        difference = int(table[0, column] - table[1, column])
        return [place(sealed, column, 0, -difference), place(sealed, column, 1, difference)]

    free = next(c for c in range(7, COLUMNS) if table[0, c] != table[1, c])
    judged(key_holder, sealed, lied(thief, sealed, exchanged(free)))
    one, other = 0, int(np.flatnonzero(table[:, 4:7].argmax(1) != table[0, 4:7].argmax())[0])
    cells = []
    for column in (4, 5, 6):
        difference = int(table[one, column] - table[other, column])
        cells += [place(sealed, column, one, -difference), place(sealed, column, other, difference)]
    with pytest.raises(ValueError, match="UPLOAD_REPLIES: a test failed"):
        judged(key_holder, sealed, lied(thief, sealed, cells))


def test_what_lies_where_no_column_does_is_read_by_nobody(
    key_holder: KeyHolder, thief: Thief, sealed: SealedSet, rows: tuple
) -> None:
    """It passes on valid rows, and changes no score: the weights there are 0."""
    blob = lied(thief, sealed, where_no_column_lies(sealed))
    judged(key_holder, sealed, blob)
    model = IntegerModel(
        kind="linear",
        columns=tuple(Column.value_of(i, 0.0, 1.0, 100) for i in range(COLUMNS)),
        weights=np.arange(COLUMNS) * 7,
        bias=-70_000,
        n_features=COLUMNS,
    )
    inputs = (key_holder.public_keys(), sealed.layout, [blob], model, range(COLUMNS))
    server = CheckedScoringRun(*inputs, SEED, "run", NONCES[0])
    (part,) = parts_of(server.score(), Kind.SCORE)
    shown = folded(key_holder.vector(memoryview(part), "x")) - server._row_mask(0)
    scores = 2 * model.score_columns(rows[0])[sealed.order]
    assert np.array_equal(shown[:ROWS] % P, scores % P)


@pytest.mark.parametrize("claim", ["two strips", "a label"])
def test_claims_that_a_strip_cannot_hold_are_an_error(
    key_holder: KeyHolder, sealed: SealedSet, claim: str
) -> None:
    forms = [{1: 1}, {4: 1}] if claim == "two strips" else [{1: 1}, {COLUMNS: 1}]
    with pytest.raises(ValueError, match="claims: "):
        UploadChecks(
            key_holder.public_keys(),
            sealed.layout,
            sealed.blobs,
            SEED,
            "upload",
            partitions=[forms],
        )


# ---------------------------------------------------------------- the fold


@pytest.fixture(scope="module")
def packed_stage(key_holder: KeyHolder) -> Stage:
    model = IntegerModel(
        kind="linear",
        columns=tuple(Column.value_of(i, 0.0, 1.0, 16) for i in range(20)),
        weights=np.arange(-600, 600, 60),
        bias=4500,
        n_features=20,
    )
    return Stage(key_holder, model.with_edges([0, 16, 32]), strips=(1,) * 20)


def dishonest(stage: Stage, masked: np.ndarray) -> bytes:
    """Well-formed digits of other sums than the strips'."""
    share = stage.agent._grid.split_masked(masked)
    parts = []
    for radix, digit in zip(stage.agent._grid.radices, share.digits, strict=True):
        parts += [stage.holder.encrypted(digit == value) for value in range(radix - 1)]
    parts += [stage.holder.encrypted(share.flag), stage.holder.encrypted(share.top)]
    honest = parts_of(stage.messages["digits"], Kind.DIGITS)
    return framing.encode(Kind.DIGITS, [honest[0], *parts])


def moved(slot: int, by: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(seen: np.ndarray) -> np.ndarray:
        sums = folded(seen)
        sums[slot] = (sums[slot] + by) % P
        return sums

    return change


def without_the_last_strip(seen: np.ndarray) -> np.ndarray:
    return folded(np.where(np.arange(N) < strip(STRIPS - 1).start, seen, 0))


FALSE_SUMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one more in one row": moved(3, 1),
    # rows exchanged, and sums behind the rows, are two or one of the same
    "something behind the first strip": moved(STRIP_ROWS, 1),
    "the first strip alone": lambda seen: folded(np.where(np.arange(N) < STRIP_ROWS, seen, 0)),
    "all but the last strip": without_the_last_strip,
    "not added up": lambda seen: seen,
    "nothing": lambda seen: seen * 0,
}


@pytest.mark.parametrize("lie", sorted(FALSE_SUMS))
def test_a_false_sum_of_the_strips_earns_no_share(
    packed_stage: Stage, thief: Thief, lie: str
) -> None:
    stage = packed_stage
    seen = stage.holder.vector(memoryview(parts_of(stage.messages["score"], Kind.SCORE)[0]), "x")
    elements = refused_early(stage, thief, dishonest(stage, FALSE_SUMS[lie](seen)))
    assert len(elements) == 6, "learned: u, five one-time padded elements and its own noise"


def test_an_honest_sum_of_the_same_bytes_passes(packed_stage: Stage) -> None:
    packed_stage.to_characters()
