"""Where a scoring run stands, and what it releases.

A run moves through the same rounds always; where it stands follows from the tasks that exist for
it, so nothing else needs to be stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse import cells
from clearinghouse.errors import InputError
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import NoiseTable
from clearinghouse.noise_laws import NoiseLaw, coins_for, rho_of
from clearinghouse.rounds.submissions import schema_of, sealed_set
from clearinghouse.rounds.twins import SAME_AS
from clearinghouse.store.records import Request, Run, TaskRecord
from clearinghouse.store.store import Tx
from clearinghouse.subgroups import published_subgroups
from dp.laws import parts

ROUNDS = {
    "score.digits": ("digits", "digits_blob"),
    "score.early": ("early", "replies_blob"),
    "nonce.reveal": ("developer_nonce", "nonce"),
    "score.characters": ("characters", "characters_blob"),
    "score.final": ("final", "replies_blob"),
    "score.replies": ("replies", "replies_blob"),
}
"""Rounds of a run in order, with the worker's name for what each brings."""


def noise_tables(
    epsilon_micro: int,
    labels: int,
    bins: int,
    groups: Sequence[tuple[str, int]],
    law: NoiseLaw = "geometric",
    classes: int = 1,
) -> list[NoiseTable]:
    """The tables of a release; a patient is in one cell of each, so their epsilons add up.

    A run of several classes releases the tables of each of them, the class against the rest; the
    classes share each part equally.

    Args:
        epsilon_micro: Spent by the whole run; the tables' parts sum to it exactly.
        labels: Label classes; of several classes each has two, the rest and itself.
        bins: Published bins of the model.
        groups: Name and number of levels of each subgroup attribute.
        law: Under committed coins each table has the fewest that give it its epsilon.
        classes: Histograms of the run.
    """
    own, part = parts(epsilon_micro, len(groups), classes)
    found = []
    for k, histogram in enumerate(own):
        place = f":{k}" if classes > 1 else ""
        count = 2 if classes > 1 else labels
        found.append((f"histogram{place}", count * bins, histogram))
        found += [(f"group{place}:{name}", levels * count, part) for name, levels in groups]
    return [
        NoiseTable(name=name, cells=size, epsilon_micro=epsilon, coins=coins_for(law, epsilon))
        for name, size, epsilon in found
    ]


def check_rho(terms: OpenRequest, coins: Sequence[int]) -> None:
    """Check that a request whose runs are paid in rho names what its coins cost.

    Raises:
        InputError: It names another amount, or its law has no coins.
    """
    if terms.rho_score_micro and terms.rho_score_micro != rho_of(coins):
        raise InputError(
            f"rho_score_micro is {terms.rho_score_micro}, and the coins of a run cost "
            f"{rho_of(coins)}: name that"
        )


# ---------------------------------------------------------------- the messages of a run


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that can move, with all that came for it so far.

    Attributes:
        job: Arguments that rebuild the run in the worker.
        tables: What will be released, with epsilons.
    """

    run: Run
    job: dict[str, Any]
    tables: tuple[NoiseTable, ...]


def _tasks(tx: Tx, request: Request, run: Run) -> dict[str, TaskRecord]:
    return {task.task.kind: task for task in tx.tasks.of(request.id, subject=run.id)}


def turn_of(tx: Tx, request: Request, run: Run, tasks: Mapping[str, TaskRecord]) -> Turn:
    """All that came for a run so far."""
    sealed, schema = sealed_set(tx, request), schema_of(tx, request)
    kept = published_subgroups(schema, sealed.size_class)
    groups = [(name, len(schema.stratum_names(name))) for name in kept]
    model = run.model
    edges = model["edges"]
    histograms = model.get("histograms")
    tables = noise_tables(
        request.terms.epsilon_score_micro,
        cells.n_labels(schema),
        len(edges) - 1 if isinstance(edges, list) else 0,
        groups,
        request.terms.noise_law,
        len(histograms) if isinstance(histograms, list) and histograms else 1,
    )
    job: dict[str, Any] = {
        "run": run.id,
        "seed": run.seed,
        "nonce": run.nonce,
        "keys": sealed.keys_blob,
        "upload": list(sealed.upload_blobs),
        "layout": sealed.layout,
        "model": model["digest"],
        "columns": model["columns"],
        "coins": [table.coins for table in tables if table.coins],
    }
    for kind, (name, field) in ROUNDS.items():
        answer = tasks[kind].answer if kind in tasks else None
        if answer is not None:
            job[name] = getattr(answer, field)
    return Turn(run, job, tuple(tables))


def running_runs(tx: Tx, request: Request) -> list[tuple[Run, dict[str, TaskRecord]]]:
    """The scoring runs that have not ended, each with its tasks by kind; twins have none."""
    return [
        (run, _tasks(tx, request, run))
        for run in tx.runs.of(request.id, "score")
        if run.state == "running" and SAME_AS not in run.model
    ]


def next_turn(tx: Tx, request: Request, done: str, following: str) -> Turn | None:
    """The first run whose task `done` is answered and that has no `following` task yet.

    A run whose job is queued or at work is passed over: others can go on meanwhile.
    """
    busy = tx.jobs.busy(request.id)
    for run, tasks in running_runs(tx, request):
        if run.id in busy:
            continue
        if done in tasks and following not in tasks and tasks[done].answer is not None:
            return turn_of(tx, request, run, tasks)
    return None


def reading(run: Run) -> dict[str, Any]:
    """What it takes to read a run's counts, from the model that was inspected."""
    names = ("edges", "threshold_edge", "histograms", "unit", "task", "width")
    return {name: run.model[name] for name in names if name in run.model}
