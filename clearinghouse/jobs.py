"""What the worker can do: test uploads, open targets, score models, check proofs. Loads TenSEAL.

Objects of a run are kept between its messages; when they are gone (a crash, a restart) they are
built again from seed and blobs and give the same bytes, because every message is a function of
those. So a job may be repeated at any time.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from clearinghouse.errors import InputError, VerificationError
from clearinghouse.job_state import Jobs, Run
from clearinghouse.model_jobs import inspect_model
from clearinghouse.replay_jobs import delivery_replay, score_replay, target_replay, upload_replay
from clearinghouse.rows import verify_proofs
from clearinghouse.schema import Schema
from clearinghouse.score_cards import Released, document
from clearinghouse.upload_claims import claims
from secure_eval.checked import CheckedScoringRun
from secure_eval.class_models import ClassModels, read_model
from secure_eval.class_run import ClassesScoringRun
from secure_eval.evaluator import Layout
from secure_eval.run_inputs import BlockStep
from secure_eval.target import TargetOpening
from secure_eval.upload_checks import UploadChecks

__all__ = ["Jobs", "perform", "units"]

Arguments = Mapping[str, Any]
CONFIDENCE = 0.9

_RUN = ("run", "keys", "upload", "layout", "model", "columns", "seed", "nonce", "coins")
"""What a run is a function of, beside the messages that it received."""

_RECEIVED: Mapping[str, tuple[str, ...]] = {
    "score": (),
    "early": ("digits",),
    "shares": ("digits",),
    "final": ("digits", "characters"),
    "openings": ("digits", "characters"),
}
"""The key holder's messages that a step needs."""


def perform(state: Jobs, job: str, arguments: Arguments) -> dict[str, Any]:
    """Do one job.

    Raises:
        InputError: There is no such job.
        ClearinghouseError, ValueError: The bytes that came are at fault.
    """
    if job not in _JOBS:
        raise InputError(f"no job is called {job}")
    return _JOBS[job](state, arguments)


def _failure(accept: Callable[[bytes], object], replies: bytes) -> dict[str, Any]:
    """{"failed": reason} if the other side's replies do not pass, which proves a false message."""
    try:
        accept(replies)
    except ValueError as error:
        return {"failed": str(error)}
    return {}


# ---------------------------------------------------------------- uploads


def _upload_checks(state: Jobs, arguments: Arguments) -> UploadChecks:
    layout = _layout(arguments)
    found = claims(Schema.from_dict(arguments["schema"]), arguments["level"], layout)
    return UploadChecks(
        state.blobs.get(arguments["keys"]),
        layout,
        [state.blobs.get(blob) for blob in arguments["upload"]],
        bytes.fromhex(arguments["seed"]),
        arguments["valset"],
        partitions=found.partitions,
        relations=found.relations,
    )


def _valset_checks(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    checks = _upload_checks(state, arguments)
    message = checks.message()
    state.keep(arguments["valset"], "sent", checks)
    return state.send(message)


def _valset_verdict(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    checks = state.take(arguments["valset"], "sent")
    if checks is None:
        checks = _upload_checks(state, arguments)
        checks.message()
    return _failure(checks.accept, state.blobs.get(arguments["replies"]))


# ---------------------------------------------------------------- target


def _target(state: Jobs, arguments: Arguments) -> TargetOpening:
    return TargetOpening(
        state.blobs.get(arguments["keys"]),
        _layout(arguments),
        [state.blobs.get(blob) for blob in arguments["upload"]],
        bytes.fromhex(arguments["seed"]),
        arguments["run"],
    )


def _target_checks(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    opening = _target(state, arguments)
    message = opening.checks(state.blobs.get(arguments["noise"]))
    state.keep(arguments["run"], "tested", opening)
    return state.send(message)


def _tested(state: Jobs, arguments: Arguments) -> TargetOpening:
    opening: TargetOpening | None = state.take(arguments["run"], "tested")
    if opening is None:
        opening = _target(state, arguments)
        opening.checks(state.blobs.get(arguments["noise"]))
    return opening


def _target_openings(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Masked sums, only after the noise passed its test."""
    opening = _tested(state, arguments)
    failure = _failure(opening.accept, state.blobs.get(arguments["checked"]))
    if failure:
        return failure
    message = opening.openings(state.blobs.get(arguments["noise"]))
    state.keep(arguments["run"], "opened", opening)
    return state.send(message)


def _target_release(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    opening = state.take(arguments["run"], "opened")
    if opening is None:
        opening = _tested(state, arguments)
        opening.accept(state.blobs.get(arguments["checked"]))
        opening.openings(state.blobs.get(arguments["noise"]))
    counts = opening.release(state.blobs.get(arguments["replies"]))
    return {"counts": counts.reshape(-1).tolist()}


# ---------------------------------------------------------------- scores


def _scoring(state: Jobs, arguments: Arguments) -> Run:
    model = read_model(state.blobs.get(arguments["model"]))
    kind: Any = ClassesScoringRun if isinstance(model, ClassModels) else CheckedScoringRun
    run: Run = kind(
        state.blobs.get(arguments["keys"]),
        _layout(arguments),
        [state.blobs.get(blob) for blob in arguments["upload"]],
        model,
        arguments["columns"],
        bytes.fromhex(arguments["seed"]),
        arguments["run"],
        bytes.fromhex(arguments["nonce"]),
        coins=arguments["coins"],
    )
    run.share_parts(state.parts)
    return run


def _score_begin(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run = _scoring(state, arguments)
    with state.shared(run, "score", arguments):
        message = run.score()
    state.keep(arguments["run"], "scored", run)
    return state.send(message)


def _score_early(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Tests of the digits; they need nothing of the score message itself."""
    run: Run | None = state.take(arguments["run"], "scored")
    run = run or _scoring(state, arguments)
    message = _early_checks(state, run, arguments)
    state.keep(arguments["run"], "early", run)
    return state.send(message)


def _early_checks(state: Jobs, run: Run, arguments: Arguments) -> bytes:
    with state.shared(run, "early", arguments):
        return run.early_checks(state.blobs.get(arguments["digits"]))


def _early(state: Jobs, arguments: Arguments) -> Run:
    run: Run | None = state.take(arguments["run"], "early")
    if run is None:
        run = _scoring(state, arguments)
        _early_checks(state, run, arguments)
    return run


def _score_verdict(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Whether the digits passed their tests: nobody opens a nonce before."""
    run = _early(state, arguments)
    failure = _failure(run.accept_early, state.blobs.get(arguments["early"]))
    state.keep(arguments["run"], "early", run)
    return failure


def _score_shares(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Shares, only after the digits passed their tests and the developer opened its nonce."""
    run = _early(state, arguments)
    failure = _failure(run.accept_early, state.blobs.get(arguments["early"]))
    if failure:
        return failure
    message = _make_shares(state, run, arguments)
    state.keep(arguments["run"], "shared", run)
    return state.send(message)


def _make_shares(state: Jobs, run: Run, arguments: Arguments) -> bytes:
    with state.shared(run, "shares", arguments):
        return run.shares(state.blobs.get(arguments["digits"]))


def _shared(state: Jobs, arguments: Arguments) -> Run:
    run: Run | None = state.take(arguments["run"], "shared")
    if run is None:
        run = _early(state, arguments)
        run.accept_early(state.blobs.get(arguments["early"]))
        _make_shares(state, run, arguments)
    return run


def _score_final(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run = _shared(state, arguments)
    message = _final_checks(state, run, arguments)
    state.keep(arguments["run"], "final", run)
    return state.send(message)


def _final_checks(state: Jobs, run: Run, arguments: Arguments) -> bytes:
    with state.shared(run, "final", arguments):
        return run.final_checks(state.blobs.get(arguments["characters"]))


def _final(state: Jobs, arguments: Arguments) -> Run:
    run: Run | None = state.take(arguments["run"], "final")
    if run is None:
        run = _shared(state, arguments)
        _final_checks(state, run, arguments)
    return run


def _score_openings(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Masked sums, only after the characters passed their tests."""
    run = _final(state, arguments)
    failure = _failure(run.accept_final, state.blobs.get(arguments["final"]))
    if failure:
        return failure
    message = _make_openings(state, run, arguments)
    state.keep(arguments["run"], "opened", run)
    return state.send(message)


def _make_openings(state: Jobs, run: Run, arguments: Arguments) -> bytes:
    with state.shared(run, "openings", arguments):
        return run.openings(state.blobs.get(arguments["characters"]), _nonces(arguments))


def _nonces(arguments: Arguments) -> tuple[bytes, bytes]:
    """Both nonces, opened after the tests of the digits."""
    first, second = arguments["nonce"], arguments["developer_nonce"]
    return bytes.fromhex(first), bytes.fromhex(second)


def _score_release(state: Jobs, arguments: Arguments) -> dict[str, Any]:
    run: Run | None = state.take(arguments["run"], "opened")
    if run is None:
        run = _final(state, arguments)
        run.accept_final(state.blobs.get(arguments["final"]))
        _make_openings(state, run, arguments)
    replies = state.blobs.get(arguments["replies"])
    try:
        opened = run.release(replies)
    except ValueError as error:
        return {"failed": str(error)}
    return {
        "counts": opened.counts.tolist(),
        "groups": {name: part.tolist() for name, part in opened.groups.items()},
    }


def _score_card(_state: Jobs, arguments: Arguments) -> dict[str, Any]:
    """Metrics and intervals of released counts, as decimal strings."""
    histograms = arguments.get("histograms") or [arguments]
    released = Released(
        arguments.get("task", "binary"),
        arguments["counts"],
        arguments["epsilon_micro"],
        [part["edges"] for part in histograms],
        [part["threshold_edge"] for part in histograms],
        arguments.get("unit", ""),
        float(arguments.get("width", "0")),
        arguments["coins"],
    )
    confidence = arguments["confidence_micro"] / 1_000_000
    return document(released.card(CONFIDENCE), arguments["metric"], confidence)


# ---------------------------------------------------------------- blocks for another process


def units(
    state: Jobs, step: BlockStep, places: Sequence[int], arguments: Arguments
) -> Iterator[list[NDArray[Any]]]:
    """Compute units of a step for the process that leads the run.

    Raises:
        ClearinghouseError, ValueError: The bytes that came are at fault.
    """
    given = {name: arguments[name] for name in _RUN}
    key = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    run: Run = state.take(key, "units") or _scoring(state, arguments)
    received = {name: state.blobs.get(arguments[name]) for name in _RECEIVED[step]}
    nonces = _nonces(arguments) if step == "openings" else ()
    run.take_messages(received.get("digits", b""), received.get("characters", b""), nonces)
    for place in places:
        yield run.block_arrays(step, place)
    state.keep(key, "units", run)


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
    "valset.checks": _valset_checks,
    "valset.verdict": _valset_verdict,
    "target.checks": _target_checks,
    "target.openings": _target_openings,
    "target.release": _target_release,
    "model.inspect": lambda state, arguments: inspect_model(state.blobs, arguments),
    "score.begin": _score_begin,
    "score.early": _score_early,
    "score.verdict": _score_verdict,
    "score.shares": _score_shares,
    "score.final": _score_final,
    "score.openings": _score_openings,
    "score.release": _score_release,
    "score.card": _score_card,
    "rows.prove": _rows_prove,
    "score.replay": lambda state, arguments: score_replay(state.blobs, arguments),
    "target.replay": lambda state, arguments: target_replay(state.blobs, arguments),
    "valset.replay": lambda state, arguments: upload_replay(state.blobs, arguments),
    "delivery.replay": lambda state, arguments: delivery_replay(state.blobs, arguments),
}
