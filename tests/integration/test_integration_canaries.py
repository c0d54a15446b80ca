"""No value of any table reaches the server: searched for after every step, in every place.

The same search finds the values in the process of the party that owns them, so it works.
"""

import os
import signal
from pathlib import Path
from typing import Any

import canary
import numpy as np
import pytest
from canary import Canary
from markets import write_market

from clearinghouse.market import load_market, load_tables
from clearinghouse.rehearsal.command import rehearse
from clearinghouse.rehearsal.stage import Stage
from clearinghouse.report.progress import Progress

WITNESSED = ("match", "deliver")
"""Steps after which the owners' processes are searched as well: it shows that the search works."""


class Planted:
    """Tables of one owner whose every number, patient id and ignored cell is a canary."""

    def __init__(self, owner: str, age: int, dose: int) -> None:
        self.numbers = {
            "age": canary.NumberFamily(f"{owner} age", age),
            "dose": canary.NumberFamily(f"{owner} dose", dose),
        }
        self.texts = {
            "pid": canary.TextFamily(f"{owner} patient"),
            "note": canary.TextFamily(f"{owner} note"),
        }
        families = [*self.numbers.values(), *self.texts.values()]
        self.canaries: list[Canary] = [family.canary for family in families]

    def rows(self, n: int, seed: int) -> list[dict[str, Any]]:
        """A table of n rows."""
        generator = np.random.default_rng(seed)
        return [
            {
                **{name: family.draw() for name, family in self.numbers.items()},
                **{name: family.draw() for name, family in self.texts.items()},
                "ward": str(generator.choice(["north", "south"])),
                "ill": int(generator.random() < 0.4),
            }
            for _ in range(n)
        ]


SCHEMA = {
    "name": "canaries",
    "patient_id": "pid",
    "label": {"name": "ill", "levels": [0, 1]},
    "columns": {
        "age": {"kind": "number", "low": 0, "high": 120, "cuts": [50]},
        "dose": {"kind": "number", "low": 10, "high": 99},
        "ward": {"kind": "category", "levels": ["north", "south"]},
    },
    "strata": [["ward"], ["age", "ward"]],
    "subgroups": ["ward"],
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Names found at the server and at the parties, by step."""
    folder = tmp_path_factory.mktemp("canaries")
    hospital, providers = Planted("hospital", 57, 46), Planted("provider", 44, 71)
    own, sold = canary.Search(hospital.canaries), canary.Search(providers.canaries)
    all_of_them = canary.Search([*hospital.canaries, *providers.canaries])
    tables = {
        "hospital": hospital.rows(60, 1),
        "first": providers.rows(90, 2),  # so many that both are admitted, whatever the noise
        "second": providers.rows(80, 3),
    }
    path = write_market(
        folder / "market", SCHEMA, tables, records=20, tariff="6.00", developers=["logistic"]
    )
    bodies = folder / "bodies"
    found: dict[str, dict[str, set[str]]] = {}

    def search(step: str, stage: Stage) -> None:
        # The parties stand still meanwhile, so the market is searched as the step left it.
        parties = [stage.pids[role] for role in ("agent", "providers", "developers")]
        for pid in parties:
            os.kill(pid, signal.SIGSTOP)
        try:
            look(step, stage)
        finally:
            for pid in parties:
                os.kill(pid, signal.SIGCONT)

    def look(step: str, stage: Stage) -> None:
        everywhere: set[str] = set()
        for pid in canary.descendants(stage.pids["server"]):
            everywhere |= all_of_them.in_process(pid)
        for place in (stage.server_data, bodies):
            everywhere |= all_of_them.in_tree(place)
        for log in stage.directory.glob("*.log"):  # of the parties' processes as well
            everywhere |= all_of_them.in_tree(log)
        found[step] = {
            "server": everywhere,
            "agent": own.in_process(stage.pids["agent"]) if step in WITNESSED else set(),
            "providers": (sold.in_process(stage.pids["providers"]) if step in WITNESSED else set()),
            "bodies": {path.name for path in bodies.rglob("*") if path.is_file()},
        }

    market = load_market(path)
    rehearse(
        market,
        load_tables(market),
        Progress(enabled=False),
        on_step=search,
        record_bodies=bodies,
    )
    return found


def test_the_search_finds_every_form_at_every_offset(tmp_path: Path) -> None:
    planted = Planted("somebody", 57, 46)
    search = canary.Search(planted.canaries)
    noise = np.random.default_rng(0).bytes(3 * canary.CHUNK)
    assert search.in_tree(tmp_path) == set()
    for item in planted.canaries:
        for form in item.forms:
            for offset in (0, 1, 1000, 1001, canary.CHUNK - 3, len(noise)):
                (tmp_path / "file").write_bytes(noise[:offset] + form + noise[offset:])
                assert search.in_tree(tmp_path) == {item.name}, (item.name, offset)
    (tmp_path / "file").write_bytes(noise)
    assert search.in_tree(tmp_path) == set()


def test_it_was_searched_after_every_step(searched: dict[str, dict[str, set[str]]]) -> None:
    # Settling needs no party and can pass between two looks; the end state is always searched.
    assert {"intake", "match", "clear", "deliver", "score"} <= set(searched)
    assert {"settle", "audit"} & set(searched)
    assert all(found["bodies"] for found in searched.values())


def test_no_value_is_anywhere_at_the_server(searched: dict[str, dict[str, set[str]]]) -> None:
    assert {step: found["server"] for step, found in searched.items() if found["server"]} == {}


def test_the_same_search_finds_the_values_at_their_owners(
    searched: dict[str, dict[str, set[str]]],
) -> None:
    # Patient ids and ignored columns are read from the file and dropped; numbers stay in memory.
    for step in WITNESSED:
        found = searched[step]
        assert {"hospital age", "hospital dose"} <= found["agent"]
        assert {"provider age", "provider dose"} <= found["providers"]
