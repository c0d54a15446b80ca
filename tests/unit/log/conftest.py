"""A small real log with a score receipt in it, cosigned by one witness, and a told market."""

from dataclasses import replace

import pytest
from log_world import NOW_S, ORIGIN, Party, World, make_world
from told_market import Market

from clearinghouse.ids import new_id
from clearinghouse.log import merkle

__all__ = ["NOW_S", "ORIGIN", "Party", "World"]


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture
def fork(world: World) -> World:
    """The same parties and log key, but the last entry is another one."""
    other = world.operator.entry("request.closed", objects={"request": new_id("req")})
    entries = [*world.entries[:-1], other]
    nodes = merkle.MemoryNodes()
    for entry in entries:
        merkle.append(nodes, entry.data)
    return replace(world, entries=entries, nodes=nodes)


@pytest.fixture
def market() -> Market:
    return Market()
