"""`doctor`: the owner's epsilon ledger, in its file or in the owner's database."""

from collections.abc import Iterator
from pathlib import Path

from clearinghouse.cli.doctor import Finding
from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.money import format_money


def ledger(home: Path) -> Iterator[Finding]:
    """Whether the ledger of a home can be read, and what it says.

    A home without a table of patients has none, unless it was told of a database.
    """
    from clearinghouse.cli.budget import LIMITS, read_books
    from clearinghouse.cli.profile import open_keys, read_profile

    profile, keystore = read_profile(home), open_keys(home)
    terms, words = keystore.recall(LIMITS.get(profile.role, "none")), keystore.ledger_words
    if terms is None:
        if not isinstance(keystore.ledger_place, Path):
            yield Finding("ledger", "ok", f"{words}, to be made with the first table of patients")
        return
    try:
        books = read_books(keystore, terms)
    except TryAgainError as error:
        remedy = "nothing is released until it answers: see that it runs and lets this machine in"
        yield Finding("ledger", "broken", str(error), remedy)
    except ClearinghouseError as error:
        yield Finding("ledger", "broken", str(error), "see docs/privacy.md on ledgers")
    else:
        spent, limit = format_money(books.spent), format_money(books.limit)
        found = f"{words}: {spent} of {limit} epsilon spent in {len(books.entries)} releases"
        yield Finding("ledger", "ok", found)
