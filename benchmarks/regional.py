"""Markets whose strata are regions of a public reference: rows that are in no source's table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import tasks
from clearinghouse.cli.preflight import synthetic
from clearinghouse.demo import SITES
from clearinghouse.regions import Regions
from clearinghouse.schema import Schema, embedded
from clearinghouse.tables import Table
from matching.reference import codewords

Makers = Mapping[str, tasks.Maker]
Market = tuple[str, list[list[str]], Makers]

DIGITS_REFERENCE, DIABETES_REFERENCE, MADE_ROWS = 300, 3000, 4000


def markets(diabetes: Path | None) -> list[Market]:
    """Name, strata and makers of each market with regions."""
    return [*_digits(), *_heart(), *(_diabetes(diabetes) if diabetes is not None else [])]


def _digits() -> list[Market]:
    """300 images are the public reference; the others are shared out as before."""
    public, rest = _set_aside(tasks.digits_table(), DIGITS_REFERENCE)
    return [
        _market(f"digits, {n} regions", {"digits": partial(tasks.digits, rest)}, public, n)
        for n in (4, 6, 10)
    ]


def _heart() -> list[Market]:
    """No outside table is at hand: the reference is made of the schema alone."""
    made = {site: partial(_same, tasks.heart(site)) for site in sorted(SITES)}
    public = synthetic(tasks.heart_tables()[0], MADE_ROWS, 0)
    return [_market(f"heart, {n} regions of made rows", made, public, n) for n in (6, 8, 12)]


def _diabetes(path: Path) -> list[Market]:
    """3,000 patients are the public reference; no site has them."""
    public, rest = _set_aside(tasks.diabetes_table(path), DIABETES_REFERENCE)
    made = {"diabetes": partial(tasks.diabetes, rest)}
    clinical = [
        column.name
        for column in public.schema.columns
        if column.name not in ("age", "gender", "race")
    ]
    strata = [["gender"], ["gender", "region"], ["age", "gender", "region"]]
    return [
        *(_market(f"diabetes-130, {n} regions", made, public, n) for n in (16, 32)),
        _market("diabetes-130, 4 clinical regions", made, public, 4, clinical, strata),
    ]


def _same(task: tasks.Task, _seed: int) -> tasks.Task:
    return task


def _set_aside(everyone: Table, n: int) -> tuple[Table, Table]:
    order = np.random.default_rng(0).permutation(everyone.n)
    return everyone.take(order[:n]), everyone.take(order[n:])


def _market(
    name: str,
    makers: Makers,
    public: Table,
    n_cells: int,
    columns: Sequence[str] = (),
    strata: Sequence[Sequence[str]] = (("region",),),
) -> Market:
    chosen = tuple(
        column for column in public.schema.columns if not columns or column.name in columns
    )
    points = codewords(embedded(chosen, public), n_cells)
    regions = Regions("region", chosen, tuple(map(tuple, points.tolist())), "0" * 64)
    levels = tuple(tuple(level) for level in strata)
    schema = replace(public.schema, regions=(regions,), strata=levels)
    made = {who: _with(schema, maker) for who, maker in makers.items()}
    return name, [list(level) for level in levels], made


def _with(schema: Schema, maker: tasks.Maker) -> Callable[[int], tasks.Task]:
    def make(seed: int) -> tasks.Task:
        task = maker(seed)
        sources = {name: replace(table, schema=schema) for name, table in task.sources.items()}
        customer = replace(task.customer, schema=schema)
        return replace(task, schema=schema, customer=customer, sources=sources)

    return make
