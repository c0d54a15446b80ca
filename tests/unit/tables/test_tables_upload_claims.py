"""What the server has tested of an upload holds for every honest one and breaks with every lie."""

from dataclasses import replace

import numpy as np
import pytest

from clearinghouse import cells, features, model_columns
from clearinghouse.schema import parse_schema
from clearinghouse.tables import read_table
from clearinghouse.upload_claims import claims
from secure_eval.layout import Layout
from secure_eval.params import PARAMETERS
from secure_eval.strip_checks import StripChecks

P = PARAMETERS.plain_modulus
SCHEMA = parse_schema(
    {
        "name": "s",
        "label": {"name": "y", "levels": ["0", "1"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "pain": {"kind": "category", "levels": ["a", "b", "c"], "missing": True},
            "age": {"kind": "number", "low": 20, "high": 90, "cuts": [45, 63]},
            "chol": {"kind": "number", "low": 0, "high": 9, "cuts": [4], "missing": True},
            "vessels": {"kind": "number", "low": 0, "high": 3},
        },
        "strata": [["pain"], ["pain", "chol", "vessels"]],
        "subgroups": ["sex", "age", "pain"],
    },
    file="s",
)
LEVEL = ("pain", "chol", "vessels")
N, PADDING = 60, 4


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """(layout, slots): parts x rows of an honest block, with some padding."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(N):
        row = [
            rng.choice(["F", "M"]),
            rng.choice(["a", "b", "c", ""]),
            f"{rng.integers(20, 91)}",
            rng.choice(["", f"{rng.integers(0, 10)}"]),
            f"{rng.integers(0, 4)}",
            f"{rng.integers(0, 2)}",
        ]
        rows.append(",".join(row))
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text("sex,pain,age,chol,vessels,y\n" + "\n".join(rows) + "\n")
    table = read_table(path, SCHEMA)
    labels = np.asarray(table.labels)
    groups = {name: SCHEMA.stratum_codes(table, name) for name in SCHEMA.subgroups}
    columns = model_columns.encode(SCHEMA, table)
    layout = Layout(
        PARAMETERS.version,
        1,
        columns.shape[1],
        2,
        cells.codebook(SCHEMA, LEVEL).n_cells,
        tuple((name, len(SCHEMA.stratum_names(name))) for name in groups),
    )
    slots = np.zeros((layout.parts, N + PADDING), np.int64)
    row = np.arange(N)
    slots[: layout.columns, :N] = columns.T
    slots[layout.columns + labels, row] = 1
    slots[layout.valid_part, :N] = 1
    slots[layout.cell_part(0, 0) + cells.places(table, LEVEL), row] = 1
    for name, codes in groups.items():
        slots[layout.group_parts(name).start + codes * 2 + labels, row] = 1
    return layout, slots


def values(form, slots):
    return sum(weight * slots[part] for part, weight in form.items())


def broken(found, slots):
    """Whether some claim fails in some slot."""
    wrong = any((values(form, slots) % P).any() for form in found.relations)
    for forms in found.partitions:
        each = np.array([values(form, slots) % P for form in forms])
        wrong |= bool(((each != 0) & (each != 1)).any() or (each.sum(axis=0) > 1).any())
    return wrong


def test_honest_rows_satisfy_all_claims(sealed):
    layout, slots = sealed
    found = claims(SCHEMA, LEVEL, layout)
    assert not broken(found, slots)
    for forms in found.partitions:  # each row is in one part of each partition
        total = sum(values(form, slots) for form in forms)
        assert (total == slots[layout.valid_part]).all()


def test_what_is_multiplied_shares_a_strip_of_a_packed_set(sealed):
    layout, _ = sealed
    sizes = model_columns.strips(SCHEMA)
    assert sizes == [2, 4, 1, 11, 1, 10, 1, 3]
    packed = replace(layout, strips=tuple(sizes))
    found = claims(SCHEMA, LEVEL, packed)
    assert found == claims(SCHEMA, LEVEL, layout)
    StripChecks(packed, found.partitions, found.relations)
    apart = replace(layout, strips=(1,) * layout.columns)
    with pytest.raises(ValueError, match="the columns of a partition must share a strip"):
        StripChecks(apart, found.partitions, found.relations)


def test_every_changed_bit_cell_and_subgroup_breaks_a_claim(sealed):
    layout, slots = sealed
    found = claims(SCHEMA, LEVEL, layout)
    kinds = [feature.kind for feature in features.features(SCHEMA)]
    bits = [index for index, kind in enumerate(kinds) if kind != "value"]
    tables = range(layout.cell_part(0, 0), layout.parts)
    for part in [*bits, *tables]:
        for row in (0, 7, N):
            for change in (1, -1, 2, P // 2):
                lie = slots.copy()
                lie[part, row] += change
                if part in bits and change in (1, -1) and _still_honest(kinds, part, lie, slots):
                    continue
                assert broken(found, lie), (part, row, change)


def _still_honest(kinds, part, lie, slots):
    """A threshold between two strata may be crossed by another value in the same stratum."""
    is_threshold = kinds[part] == "threshold"
    return is_threshold and set(np.unique(lie[part])) <= {0, 1}


def test_a_threshold_bit_out_of_its_chain_breaks_a_claim(sealed):
    layout, slots = sealed
    found = claims(SCHEMA, LEVEL, layout)
    names = [feature.name for feature in features.features(SCHEMA)]
    first = next(i for i, name in enumerate(names) if name.startswith("age >="))
    chain = [i for i, name in enumerate(names) if name.startswith("age >=")]
    assert chain == list(range(first, first + len(chain)))
    row = int(np.flatnonzero(slots[chain].sum(axis=0) == 0)[0])
    for index in chain[1:]:
        lie = slots.copy()
        lie[index, row] = 1
        assert broken(found, lie)


def test_a_whole_row_of_bits_that_is_not_the_row_of_the_cell_breaks_a_claim(sealed):
    """Another patient's bits, well formed in themselves, beside the cells of this one."""
    layout, slots = sealed
    found = claims(SCHEMA, LEVEL, layout)
    seen = 0
    for other in range(1, N):
        lie = slots.copy()
        lie[: layout.columns, 0] = slots[: layout.columns, other]
        strata = slots[layout.cell_part(0, 0) :]
        same = (strata[0::2, [0, other]] + strata[1::2, [0, other]]).T
        assert broken(found, lie) == (same[0] != same[1]).any()
        seen += (same[0] == same[1]).all()
    assert seen < N - 1  # most lies break one


def test_an_added_row_in_the_padding_breaks_a_claim(sealed):
    layout, slots = sealed
    found = claims(SCHEMA, LEVEL, layout)
    for part in (0, 1, layout.valid_part, layout.cell_part(2, 1)):
        lie = slots.copy()
        lie[part, N + 1] = 1
        assert broken(found, lie)
