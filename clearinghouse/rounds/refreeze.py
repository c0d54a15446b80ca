"""Freezing a clearing's inputs again, without sources that left before the asks were closed.

Once a commitment to an ask is logged the inputs stand: a source that leaves then is silent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clearinghouse.canonical import canonical_bytes
from clearinghouse.messages.results import TargetView
from clearinghouse.rounds import grants
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.moves import Move
from clearinghouse.schema import Schema
from clearinghouse.store.records import Request, Summary
from clearinghouse.store.store import Tx


@dataclass(frozen=True, slots=True)
class Left:
    """Frozen inputs that hold a source which has left, and what is left without it."""

    target: TargetView
    schema: Schema
    summaries: Mapping[str, Summary]


def _left(tx: Tx, request: Request) -> Left | None:
    if tx.asks.of(request.id):
        return None
    target = TargetView.model_validate_json(tx.requests.document(request.id, "target") or "")
    summaries = grants.summaries(tx, request)
    if not any(any(target.supplies[name]) for name in target.supplies if name not in summaries):
        return None
    valset = tx.cohorts.valset(request.valset_id)
    return Left(target, read_schema(tx.cohorts.schema(valset.schema_id)), summaries)


def _freeze(_desk: Desk, request: Request, found: Left) -> TargetView:
    return freeze(
        found.target.run_id,
        request.terms,
        request.terms_digest,
        found.schema,
        tuple(found.target.level),
        found.target.noised,
        found.summaries,
    )


def _commit(tx: Tx, desk: Desk, request: Request, _found: Left, target: TargetView) -> bool:
    """Replace the inputs and ask for asks anew: what was sealed so far was for other inputs."""
    tx.requests.replace(request.id, "target", canonical_bytes(target.model_dump()).decode())
    tx.erasure.drop_tasks(request.id, "ask.commit")
    desk.record(
        tx,
        "inputs.frozen",
        desk.org,
        objects={"request": request.id},
        hashes={"inputs": target.frozen_digest},
    )
    return False


MOVE = Move("to match again without a source that left", _left, _freeze, _commit)
