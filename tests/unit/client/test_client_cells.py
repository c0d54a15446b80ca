import numpy as np
import pytest

from clearinghouse import cells, features, model_columns
from clearinghouse.errors import InputError


def test_places_count_every_row_once_in_its_cell_and_label(schema, heart):
    table = heart(300, seed=1)
    for level in schema.strata_levels():
        found = np.zeros((cells.codebook(schema, level).n_cells, 2), np.int64)
        codes = [schema.stratum_codes(table, name) for name in level]
        sizes = [len(schema.stratum_names(name)) for name in level]
        for row in range(table.n):
            cell = 0
            for code, size in zip(codes, sizes, strict=True):
                cell = cell * size + int(code[row])
            found[cell, table.labels[row]] += 1
        assert cells.counts(table, level).tolist() == found.reshape(-1).tolist()
        assert cells.n_places(schema, level) == found.size
    assert cells.counts(table, ()).tolist() == np.bincount(table.labels, minlength=2).tolist()


def test_a_level_that_the_schema_has_not_is_refused(schema):
    for level in (["pain"], ["sex", "age"], ["age"], ["nothing"]):
        with pytest.raises(InputError):
            cells.codebook(schema, level)


@pytest.mark.parametrize(
    ("epsilon", "size", "most", "expected"),
    [
        (500_000, 32, None, ("age", "sex")),
        (500_000, 31, None, ("sex",)),
        (1_000_000, 64, 15, ("sex",)),
        (1_000_000, 64, 16, ("age", "sex")),
        (1_000_000, 64, 1, ()),
        (1, 1, None, ()),
    ],
)
def test_the_level_follows_from_declared_numbers(schema, epsilon, size, most, expected):
    level = cells.finest_level(schema, epsilon_micro=epsilon, size_class=size, share=1.0, most=most)
    assert level == expected


def test_columns_are_the_features_on_a_public_grid(schema, heart):
    table, found = heart(200, seed=2), features.features(schema)
    columns = model_columns.columns(schema)
    encoded, values = model_columns.encode(schema, table), features.encode(schema, table)
    assert encoded.shape == values.shape == (200, len(columns))
    for index, (feature, column) in enumerate(zip(found, columns, strict=True)):
        assert column.feature == index
        assert 0 <= encoded[:, index].min() <= encoded[:, index].max() < column.size
        error = np.abs(column.low + column.step * encoded[:, index] - values[:, index])
        if feature.kind == "value":
            assert column.size == 511
            assert error.max() <= (feature.high - feature.low) / 1020 + 1e-9
        else:
            assert column.size == 2
            assert error.max() == 0
