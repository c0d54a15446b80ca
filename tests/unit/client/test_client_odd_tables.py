"""Odd but legal tables: one row, a column without a value, one class, strata of one patient in 100.

Each is published as it is, for exactly its declared cost, whatever the rows are; what breaks the
schema is refused before anything is published or paid (tests of the command line).
"""

import numpy as np
import pytest

from clearinghouse import cells
from clearinghouse.client.hospital import Hospital, HospitalTerms
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.errors import TableError
from clearinghouse.tables import from_records

MICRO = 1_000_000


def odd(schema, heart, name):
    """A table of heart-like rows with one oddity."""
    records = heart(1 if name == "one row" else 200, seed=7).records()
    if name == "columns without a value":
        records = [{**record, "chol": None, "rate": None, "sugar": None} for record in records]
    if name in ("one class", "one row"):
        records = [{**record, "disease": "1"} for record in records]
    if name == "strata of 1%":
        records = [{**record, "sex": "F" if i < 2 else "M"} for i, record in enumerate(records)]
    return from_records(schema, records, file=name)


ODD = ["one row", "columns without a value", "one class", "strata of 1%"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_source_is_published_for_exactly_its_cost(name, bench, connect, heart, schema):
    table = odd(schema, heart, name)
    keystore, transport = connect(name.replace("%", ""))
    size = 1 << (table.n.bit_length() - 1)
    made = Provider(name, keystore, transport, table, SourceTerms(size, 1, MICRO, MICRO))
    made.publish()
    summary = made.summary()
    assert len(summary.counts) == cells.n_places(schema, summary.level)
    assert (made.budget.spent, made.budget.limit) == (MICRO, MICRO)
    assert summary.level == ([] if name == "one row" else ["age", "sex"])
    assert np.isfinite(schema.embedding(table)).all()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_validation_set_is_sealed_for_nothing(name, bench, connect, heart, schema):
    """Sealing costs no epsilon; the exact counts that the noise will cover are all there."""
    table = odd(schema, heart, name)
    keystore, transport = connect(f"sealed {name}".replace("%", ""))
    size = min(128, 1 << (table.n.bit_length() - 1))
    made = Hospital(name, keystore, transport, table, HospitalTerms(size, MICRO // 2, 3 * MICRO))
    made.register()
    made.seal()
    assert made.budget.spent == 0
    assert made.agent._secrets.target.sum() == table.n


def test_an_empty_table_is_refused_in_words(schema):
    with pytest.raises(TableError, match="no records"):
        from_records(schema, [], file="empty")
