"""Ways to spoil the entries of a told market."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from told_market import Author, Market

from clearinghouse.errors import VerificationError
from clearinghouse.log.entries import Entry
from clearinghouse.log.replay import replay, verify_replay

Plant = Callable[[Market], int]
"""Spoils a market's entries and returns the index of the one that breaks a rule."""
Make = Callable[[Market], Entry]


def before(kind: str, make: Make, behind: int = 0) -> Plant:
    def plant(market: Market) -> int:
        place = market.at(kind) + behind
        market.entries.insert(place, make(market))
        return place

    return plant


def after(kind: str, make: Make) -> Plant:
    return before(kind, make, behind=1)


def instead(kind: str, make: Make, blamed: str = "") -> Plant:
    """Put another entry in the place of the first of a type; that or a later one is blamed."""

    def plant(market: Market) -> int:
        place = market.at(kind)
        market.entries[place] = make(market)
        return market.at(blamed) if blamed else place

    return plant


def changed(kind: str, **fields: dict[str, Any]) -> Plant:
    """Change members of an entry; None takes one away."""

    def plant(market: Market) -> int:
        place = market.at(kind)
        entry = market.entries[place]
        for part, members in fields.items():
            whole = getattr(entry, part) | members
            kept = {name: value for name, value in whole.items() if value is not None}
            entry = replace(entry, **{part: kept})
        market.entries[place] = entry
        return place

    return plant


def without(*kinds: str, blamed: str, number: int = 0) -> Plant:
    """Leave every entry of some types out; the numbered one of another has nothing to follow."""

    def plant(market: Market) -> int:
        market.entries = [entry for entry in market.entries if entry.type not in kinds]
        return market.at(blamed, number)

    return plant


def moved(kind: str, to: str, blamed: str) -> Plant:
    """Move the first entry of a type to before the first of another."""

    def plant(market: Market) -> int:
        entry = market.entries.pop(market.at(kind))
        market.entries.insert(market.at(to), entry)
        return market.at(blamed)

    return plant


def late_commitment(market: Market) -> int:
    """The second source commits only when it has seen what the first one asks."""
    opening = market.entries.pop(market.at("ask.revealed"))
    market.entries.insert(market.at("ask.committed", 1), opening)
    return market.at("ask.committed", 1)


def by(author: Author, entry: Entry) -> Entry:
    return replace(entry, actor=author.org, key=author.key.key_id)


def check_blamed(market: Market, plant: Plant, words: str) -> None:
    """The first entry that is blamed is the one that breaks the rule, in these words."""
    place = plant(market)
    found = replay(market.entries).violations
    assert [item.index for item in found][:1] == [place], [str(item) for item in found]
    at_place = [item.problem for item in found if item.index == place]
    assert any(words in problem for problem in at_place), at_place
    with pytest.raises(VerificationError, match=rf"^log: entry {place} "):
        verify_replay(market.entries)
