"""What the worker can do: open targets, score models blindly, check proofs. Loads TenSEAL.

Objects of a run are kept between its messages; when they are gone (a crash, a restart) they are
built again from seed and blobs and give the same bytes, because every message is a function of
those. So a job may be repeated at any time.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from clearinghouse.blobs import BlobStore
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.model_columns import columns
from clearinghouse.rows import verify_proofs
from clearinghouse.schema import Schema
from secure_eval.evaluator import Layout, ScoringRun, TargetOpening
from secure_eval.integer_model import IntegerModel
from secure_eval.scorecard import METRICS, Scorecard

Arguments = Mapping[str, Any]
MOST_KEPT = 2
"""Runs whose ciphertexts stay in memory."""

CONFIDENCE = 0.9


class Jobs:
    """The worker's state: open runs, in order of last use."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self._runs: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def keep(self, run_id: str, stage: str, run: Any) -> None:
        """Remember a run that has come to a stage; the least used one makes room."""
        self._runs = OrderedDict(
            (key, value) for key, value in self._runs.items() if key[0] != run_id
        )
        self._runs[(run_id, stage)] = run
        while len(self._runs) > MOST_KEPT:
            self._runs.popitem(last=False)

    def take(self, run_id: str, stage: str) -> Any:
        """Return the run at exactly this stage, or None."""
        return self._runs.pop((run_id, stage), None)

    def send(self, data: bytes) -> dict[str, Any]:
        """Store a message and name it."""
        return {"blob": self.blobs.put(data), "size": len(data)}


def perform(state: Jobs, job: str, arguments: Arguments) -> dict[str, Any]:
    """Do one job.

    Raises:
        InputError: There is no such job.
        ClearinghouseError, ValueError: The bytes that came are at fault.
    """
    if job not in _JOBS:
        raise InputError(f"no job is called {job}")
    return _JOBS[job](state, arguments)


# ---------------------------------------------------------------- target


def _target(state: Jobs, arguments: Arguments) -> TargetOpening:
    return TargetOpening(
        state.blobs.get(arguments["keys"]),
        _layout(arguments),
        [state.blobs.get(blob) for blob in arguments["upload"]],
        bytes.fromhex(arguments["seed"]),
        arguments["run"],
    )


def _target_openings(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    opening = _target(state, arguments)
    message = opening.openings(state.blobs.get(arguments["noise"]))
    state.keep(arguments["run"], "opened", opening)
    return state.send(message)


def _target_release(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    opening = state.take(arguments["run"], "opened")
    if opening is None:
        opening = _target(state, arguments)
        opening.openings(state.blobs.get(arguments["noise"]))
    counts = opening.release(state.blobs.get(arguments["replies"]))
    return {"counts": counts.reshape(-1).tolist()}


# ---------------------------------------------------------------- models


def _model_inspect(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Read a submitted model strictly and find its columns among the uploaded ones."""
    text = state.blobs.get(arguments["model"])
    model = IntegerModel.from_json(text)
    if model.digest() != arguments["model"]:
        raise InputError("the model must be in its canonical text, as IntegerModel.to_json gives")
    most = int(arguments["published_bins"])
    if len(model.bin_edges) - 1 > most:
        raise InputError(
            f"this validation set publishes at most {most} bins, the model has "
            f"{len(model.bin_edges) - 1}; merge bins with with_edges"
        )
    uploaded = columns(Schema.from_dict(arguments["schema"]))
    where = {column: index for index, column in enumerate(uploaded)}
    unknown = [column for column in model.columns if column not in where]
    if unknown:
        raise InputError(
            f"the model reads a column of feature {unknown[0].feature} that is not among the "
            "encrypted columns of this schema; import it with the schema's columns"
        )
    return {
        "kind": model.kind,
        "edges": model.edges.tolist(),
        "threshold_edge": model.bin_edges.index(model.threshold_bin),
        "columns": [where[column] for column in model.columns],
    }


# ---------------------------------------------------------------- scores


def _scoring(state: Jobs, arguments: Arguments) -> ScoringRun:
    return ScoringRun(
        state.blobs.get(arguments["keys"]),
        _layout(arguments),
        [state.blobs.get(blob) for blob in arguments["upload"]],
        IntegerModel.from_json(state.blobs.get(arguments["model"])),
        arguments["columns"],
        bytes.fromhex(arguments["seed"]),
        arguments["run"],
        bytes.fromhex(arguments["nonce"]),
    )


def _score_begin(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run = _scoring(state, arguments)
    message = run.score()
    state.keep(arguments["run"], "scored", run)
    return state.send(message)


def _scored(state: Jobs, arguments: Arguments) -> ScoringRun:
    """The run before its digits; `shares` needs nothing of the score message itself."""
    run: ScoringRun | None = state.take(arguments["run"], "scored")
    return run or _scoring(state, arguments)


def _score_shares(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run = _scored(state, arguments)
    message = run.shares(state.blobs.get(arguments["digits"]))
    state.keep(arguments["run"], "shared", run)
    return state.send(message)


def _shared(state: Jobs, arguments: Arguments) -> ScoringRun:
    run: ScoringRun | None = state.take(arguments["run"], "shared")
    if run is None:
        run = _scoring(state, arguments)
        run.shares(state.blobs.get(arguments["digits"]))
    return run


def _score_openings(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run = _shared(state, arguments)
    message = run.openings(state.blobs.get(arguments["characters"]))
    state.keep(arguments["run"], "opened", run)
    return state.send(message)


def _score_release(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run = state.take(arguments["run"], "opened")
    if run is None:
        run = _shared(state, arguments)
        run.openings(state.blobs.get(arguments["characters"]))
    opened = run.release(state.blobs.get(arguments["replies"]))
    return {
        "counts": opened.counts.tolist(),
        "groups": {name: part.tolist() for name, part in opened.groups.items()},
    }


def _score_card(_state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Metrics and intervals of released counts, as decimal strings."""
    card = Scorecard.from_counts(
        arguments["counts"],
        arguments["epsilon_micro"] / 1_000_000,
        arguments["edges"],
        arguments["threshold_edge"],
        level=CONFIDENCE,
    )
    bound = card.lower_bound(arguments["metric"], arguments["confidence_micro"] / 1_000_000)
    return {
        **{name: _decimal(getattr(card, name)) for name in METRICS},
        "intervals": {
            name: [_decimal(low), _decimal(high)] for name, (low, high) in card.intervals.items()
        },
        "level": f"{CONFIDENCE}",
        "status": card.status,
        "award_bound": _decimal(bound),
        "roc": [[_decimal(x), _decimal(y)] for x, y in card.roc],
        "probabilities": [_decimal(value) for value in card.probabilities],
    }


def _decimal(value: float) -> str:
    return f"{value:.6f}"


# ---------------------------------------------------------------- deliveries


def _rows_prove(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """How many distinct committed rows a delivery proves."""
    real = verify_proofs(
        state.blobs.get(arguments["proofs"]),
        root=bytes.fromhex(arguments["root"]),
        size=arguments["leaves"],
        most=arguments["most"],
    )
    return {"real": real}


def _layout(arguments: Arguments) -> Layout:
    layout = Layout.from_json(json.dumps(arguments["layout"]))
    if layout.n_blocks != len(arguments["upload"]):
        raise VerificationError("the layout names another number of blocks than were uploaded")
    return layout


_JOBS: Mapping[str, Callable[[Jobs, Arguments], dict[str, Any]]] = {
    "target.openings": _target_openings,
    "target.release": _target_release,
    "model.inspect": _model_inspect,
    "score.begin": _score_begin,
    "score.shares": _score_shares,
    "score.openings": _score_openings,
    "score.release": _score_release,
    "score.card": _score_card,
    "rows.prove": _rows_prove,
}
