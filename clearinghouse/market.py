"""MARKET.yaml: everything a rehearsal needs to know, read strictly before anything is written."""

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from clearinghouse.documents import Fields, exact_number, load_document, shown
from clearinghouse.errors import InputError, TableError
from clearinghouse.money import MicroMoney, parse_money
from clearinghouse.purse_file import Purse, read_purse
from clearinghouse.schema import MAX_LABELS, Schema, load_schema
from clearinghouse.tables import Table, read_table

Recipe = Literal["logistic", "gam", "trees"]
RECIPES: tuple[Recipe, ...] = ("logistic", "gam", "trees")
_PARTY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Customer:
    """The hospital that wants a model: its name, table and share of rows held out."""

    name: str
    table: Path
    holdout_fraction: Fraction


@dataclass(frozen=True, slots=True)
class Source:
    """A provider: name, table, ask in micro-money a record, and declared size class or None."""

    name: str
    table: Path
    price_per_record: MicroMoney
    size_class: int | None


@dataclass(frozen=True, slots=True)
class Developer:
    """A model on offer: a built-in recipe trained on the delivered set, or an ONNX file."""

    name: str
    recipe: Recipe | None
    onnx: Path | None


@dataclass(frozen=True, slots=True)
class Epsilons:
    """Exact epsilon of one source summary, of the target and of one scoring run; all above 0."""

    source: Fraction
    target: Fraction
    score: Fraction


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Most epsilon each source and the customer may ever spend; above 0."""

    source: Fraction
    customer: Fraction


@dataclass(frozen=True, slots=True)
class Market:
    """A whole market. Money in micro-units, shares and epsilons exact.

    Attributes:
        name: `name` of the file if written, else the schema's name.
        path: The market file.
        schema: The public schema.
        customer: The hospital.
        sources: The providers, in the order written.
        developers: Models on offer, in the order written.
        records: Rows wanted, at least 1.
        currency: Three capital letters.
        tariff: Most the customer pays for a perfectly matched record, above 0.
        distance_price: Taken off the tariff for one unit of codeword distance.
        share_cap: A source sells per cell at most so many times its share, above 1.
        epsilon: Privacy loss of each kind of release.
        budget_limits: Lifetime budgets.
        purse: The developers' reward.
        fee: The platform's share inside the tariff, 0 <= fee < 1.
        fairness_pot: Share of records x tariff set aside before asks, 0 to 0.1.
        seed: Of splits and model training; never of noise, masks or keys.
    """

    name: str
    path: Path
    schema: Schema
    customer: Customer
    sources: tuple[Source, ...]
    developers: tuple[Developer, ...]
    records: int
    currency: str
    tariff: MicroMoney
    distance_price: MicroMoney
    share_cap: Fraction
    epsilon: Epsilons
    budget_limits: BudgetLimits
    purse: Purse
    fee: Fraction
    fairness_pot: Fraction
    seed: int


def load_market(path: Path | str) -> Market:
    """Read a market file and the schema it names; the tables must exist and are not read yet.

    Raises:
        InputError: A key or value is wrong, a file is absent; names file, key and remedy.
    """
    path = Path(path)
    fields = Fields(load_document(path), file=str(path))
    schema = load_schema(_path(fields, "schema", path.parent))
    market = Market(
        name=fields.text("name") if fields.has("name") else schema.name,
        path=path,
        schema=schema,
        customer=_customer(fields.part("customer"), path.parent),
        sources=_sources(fields, path.parent),
        developers=_developers(fields, path.parent),
        records=fields.integer("records", least=1),
        currency=_currency(fields),
        tariff=_money(fields, "tariff"),
        distance_price=_money(fields, "distance_price", "1.00"),
        share_cap=_fraction(fields, "share_cap", "1.5", least="1", strict=True),
        epsilon=_epsilons(fields),
        budget_limits=_limits(fields),
        purse=read_purse(fields, schema=schema, asks=True),
        fee=_fraction(fields, "fee", "0.05", below="1"),
        fairness_pot=_fraction(fields, "fairness_pot", "0", most="0.1"),
        seed=fields.integer("seed", least=0) if fields.has("seed") else 7,
    )
    fields.close()
    if market.tariff == 0:
        raise fields.fail("tariff", "above 0", "0", 'Write tariff: "6.00"')
    if schema.label.n_classes > MAX_LABELS:
        raise InputError(
            f"{path}: the label '{schema.label.name}' has {schema.label.n_classes} levels, and at "
            f"most {MAX_LABELS} can be scored. Join rare levels"
        )
    _refuse_same_party(market)
    _refuse_foreign_asks(market)
    return market


def load_tables(market: Market) -> dict[str, Table]:
    """Read and check every table: the customer's first, then the sources' in order.

    Raises:
        TableError: A table breaks the schema, or the customer's has too few rows to split.
        InputError: A declared size class is above the table's rows.
    """
    customer = market.customer
    tables = {customer.name: read_table(customer.table, market.schema)}
    if tables[customer.name].n < 2:
        raise TableError(
            "the customer's table has 1 row and is split in two",
            file=str(customer.table),
            remedy="Give at least 2 rows",
        )
    for source in market.sources:
        tables[source.name] = read_table(source.table, market.schema)
        size_class(source, tables[source.name].n, file=str(market.path))
    return tables


def size_class(source: Source, rows: int, *, file: str = "market.yaml") -> int:
    """The declared size class, or the largest power of two not above the table's rows.

    Raises:
        InputError: The declared class is above the rows.
    """
    if source.size_class is None:
        return 1 << (rows.bit_length() - 1)
    if source.size_class > rows:
        raise InputError(
            f"{file}: source '{source.name}' declares size_class {source.size_class}, which is "
            "above its number of rows. Declare a smaller power of two or leave it out"
        )
    return source.size_class


def _path(fields: Fields, key: str, folder: Path) -> Path:
    path = folder / fields.text(key)
    if not path.is_file():
        raise InputError(
            f"{fields.file}: key '{fields.name(key)}' names a file that does not exist: {path}. "
            "Paths are relative to the market file"
        )
    return path


def _party_name(fields: Fields, key: str) -> str:
    name = fields.text(key)
    if not _PARTY_NAME.fullmatch(name):
        raise fields.fail(
            key, "1 to 64 letters, digits, blanks or . _ -", name, "Begin it with a letter or digit"
        )
    return name


def _money(fields: Fields, key: str, default: str | None = None) -> MicroMoney:
    value = default if default is not None and not fields.has(key) else fields.raw(key)
    if not isinstance(value, str | int) or exact_number(value) is None:
        raise fields.fail(key, "a decimal amount of money", value, f'Write {key}: "2.00"')
    return parse_money(value, name=f"{fields.file}: key '{fields.name(key)}'")


def _fraction(
    fields: Fields,
    key: str,
    default: str,
    *,
    least: str = "0",
    strict: bool = False,
    most: str | None = None,
    below: str | None = None,
) -> Fraction:
    """An exact number with bounds: at least (strict: above) `least`, at most / below the rest."""
    number = fields.exact(key) if fields.has(key) else Fraction(default)
    low_enough = (most is None or number <= Fraction(most)) and (
        below is None or number < Fraction(below)
    )
    high_enough = number > Fraction(least) if strict else number >= Fraction(least)
    if not (low_enough and high_enough):
        words = f"above {least}" if strict else f"at least {least}"
        words += f" and at most {most}" if most is not None else ""
        words += f" and below {below}" if below is not None else ""
        raise fields.fail(key, words, fields.raw(key), f"Write for example {key}: {default}")
    return number


def _customer(fields: Fields, folder: Path) -> Customer:
    customer = Customer(
        _party_name(fields, "name"),
        _path(fields, "table", folder),
        _fraction(fields, "holdout_fraction", "0.5", strict=True, below="1"),
    )
    fields.close()
    return customer


def _sources(fields: Fields, folder: Path) -> tuple[Source, ...]:
    items = fields.items("sources")
    if not items:
        raise fields.fail("sources", "at least one source", items, "Add a source")
    sources = []
    for i, item in enumerate(items):
        part = Fields(item, file=fields.file, path=f"sources[{i}]")
        sources.append(
            Source(
                _party_name(part, "name"),
                _path(part, "table", folder),
                _money(part, "price_per_record"),
                _size_class(part),
            )
        )
        part.close()
    return tuple(sources)


def _size_class(fields: Fields) -> int | None:
    if not fields.has("size_class"):
        return None
    size = fields.integer("size_class", least=1)
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise fields.fail("size_class", "a power of two", size, f"Write size_class: {below}")
    return size


def _developers(fields: Fields, folder: Path) -> tuple[Developer, ...]:
    names = fields.texts("developers") if fields.has("developers") else RECIPES
    if not names:
        raise fields.fail("developers", "at least one model", [], f"Choose from {RECIPES}")
    developers = [_developer(fields, name, folder) for name in names]
    for developer in developers:
        if developers.count(developer) > 1:
            raise InputError(
                f"{fields.file}: key 'developers' holds '{developer.name}' twice. Keep one of them"
            )
    return tuple(developers)


def _developer(fields: Fields, name: str, folder: Path) -> Developer:
    for recipe in RECIPES:
        if name == recipe:
            return Developer(name, recipe, None)
    path = folder / name
    if path.suffix.lower() != ".onnx" or not path.is_file():
        absent = path.suffix.lower() == ".onnx"
        why = f"a file that does not exist: {path}" if absent else "no model that is known here"
        raise InputError(
            f"{fields.file}: key 'developers' holds {shown(name)}, {why}. Write one of "
            f"{', '.join(RECIPES)} or the path of an .onnx file relative to the market file"
        )
    if not _PARTY_NAME.fullmatch(path.name):
        raise fields.fail(
            "developers", "files named with letters, digits, blanks or . _ -", name, "Rename it"
        )
    return Developer(path.name, None, path)


def _currency(fields: Fields) -> str:
    currency = fields.text("currency") if fields.has("currency") else "EUR"
    if not _CURRENCY.fullmatch(currency):
        raise fields.fail("currency", "three capital letters", currency, "Write currency: EUR")
    return currency


def _mapping(fields: Fields, key: str) -> Fields:
    """The mapping under a key that may be left out."""
    return fields.part(key) if fields.has(key) else Fields({}, file=fields.file, path=key)


def _epsilons(fields: Fields) -> Epsilons:
    part = _mapping(fields, "epsilon")
    epsilons = Epsilons(
        source=_fraction(part, "source", "1.0", strict=True, most="1000000"),
        target=_fraction(part, "target", "0.5", strict=True, most="1000000"),
        score=_fraction(part, "score", "1.0", strict=True, most="1000000"),
    )
    part.close()
    return epsilons


def _limits(fields: Fields) -> BudgetLimits:
    part = _mapping(fields, "budget_limits")
    limits = BudgetLimits(
        source=_fraction(part, "source", "1.0", strict=True, most="1000000000"),
        customer=_fraction(part, "customer", "5.0", strict=True, most="1000000000"),
    )
    part.close()
    return limits


def _refuse_same_party(market: Market) -> None:
    """Names become file names and ids, so two parties may not share one, in any case."""
    seen: set[str] = set()
    for name in (market.customer.name, *(source.name for source in market.sources)):
        if name.casefold() in seen:
            raise InputError(
                f"{market.path}: two parties are called '{name}'. Give the customer and every "
                "source a name of its own"
            )
        seen.add(name.casefold())


def _refuse_foreign_asks(market: Market) -> None:
    names = {developer.name for developer in market.developers}
    for name in market.purse.asks:
        if name not in names:
            raise InputError(
                f"{market.path}: key 'purse.asks' names {shown(name)}, which is no developer here. "
                f"Write one of {', '.join(sorted(names))}"
            )
