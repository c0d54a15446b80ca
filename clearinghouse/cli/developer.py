"""A developer by hand: preflight a model, open deliveries, submit."""

import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clearinghouse.cli.loop import Say, Worker
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import Session, known_requests
from clearinghouse.client.developer import TRAINING_SET, Developer
from clearinghouse.client.recipes import RECIPES, ModelSource, onnx_source, recipe_source
from clearinghouse.client.waiting import waiting_deliveries
from clearinghouse.documents import shown
from clearinghouse.errors import InputError
from clearinghouse.messages.deliveries import ReceiveAnswer
from clearinghouse.messages.intake import RequestView
from clearinghouse.messages.results import RunList
from clearinghouse.messages.tasks import ModelSubmitAnswer
from clearinghouse.money import parse_money
from clearinghouse.schema import Schema
from clearinghouse.tables import Table
from secure_eval.class_models import Model

RECEIVE = frozenset({"receive"})
SUBMIT = frozenset({"receive", "model.submit", "nonce.reveal", "bid.reveal", "run.audit"})


def model_source(model: str, seed: int) -> ModelSource:
    """A recipe by its name, or an ONNX file by its path.

    Raises:
        InputError: It is neither, or this machine cannot read ONNX files.
    """
    if model in RECIPES:
        return recipe_source(model, seed)
    path = Path(model)
    if path.suffix.lower() != ".onnx" or not path.is_file():
        absent = "does not exist" if path.suffix.lower() == ".onnx" else "is no model"
        raise InputError(
            f"{shown(model)} {absent}. Give the path of an .onnx file, or one of the recipes "
            f"{', '.join(RECIPES)}"
        )
    try:
        return onnx_source(path)
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: this machine has no onnx package. Run: pip install 'eval-clearinghouse[onnx]'"
        ) from None


def _no_model(_schema: Schema, _table: Table | None) -> Model:
    raise InputError("no model was given")


def _developer(
    session: Session, schema: Schema, name: str, make: ModelSource, ask_micro: int | None = None
) -> Developer:
    session.join(schema)
    return Developer(name, session.keystore, session.transport, schema, make, ask_micro=ask_micro)


# ---------------------------------------------------------------- deliveries


def list_deliveries(session: Session) -> Result:
    """What waits to be opened, and the training sets that were."""
    session.org_id()
    rows = [["request", "state", "deliveries", "records"]]
    waiting = []
    for found in waiting_deliveries(session.transport):
        real = sum(ref.real for ref in found.there)
        sources = [ref.source_id for ref in found.there]
        entry = {"request_id": found.request_id, "sources": sources, "records": real}
        waiting.append({**entry, "withdrawn": [ref.source_id for ref in found.withdrawn]})
        gone = f" ({len(found.withdrawn)} withdrawn)" if found.withdrawn else ""
        rows.append([found.request_id, "to open", f"{len(sources)}{gone}", str(real)])
    opened = []
    for request_id in known_requests(session.keystore):
        path = session.keystore.path(f"requests/{request_id}/{TRAINING_SET}")
        if path.exists():
            records = int(pq.read_metadata(path).num_rows)
            opened.append({"request_id": request_id, "records": records, "file": str(path)})
            rows.append([request_id, "opened", "-", str(records)])
    value = {"waiting": waiting, "opened": opened}
    return value, columns(rows) if len(rows) > 1 else "no delivery has come for this developer yet"


def open_deliveries(session: Session, schema: Path | None, say: Say) -> Result:
    """Open, check and keep what was delivered; nothing is submitted.

    Raises:
        InputError: No schema is known.
    """
    agreed = session.schema(schema)
    developer = _developer(session, agreed, session.profile.name, _no_model)
    worker = Worker(developer, say, RECEIVE)
    worker.once(threading.Event())
    opened, lines = [], []
    for view in worker.done.values():
        path = developer.training_path(view.request_id)
        answer = developer.answer(view)
        checks = answer.checks if isinstance(answer, ReceiveAnswer) else []
        opened.append(
            {
                "request_id": view.request_id,
                "file": str(path),
                "checks": [check.model_dump() for check in checks],
            }
        )
        records = sum(check.real for check in checks)
        lines.append(f"{view.request_id}: {records} records proven and kept in {path}")
        for check in checks:
            state = "accepted" if check.accepted else "REFUSED"
            notes = f" ({'; '.join(check.problems)})" if check.problems else ""
            lines.append(f"  {check.delivery_id}: {check.real} records {state}{notes}")
    if not opened:
        lines.append("no delivery waits to be opened; see clearinghouse delivery list")
    else:
        lines.append("next: clearinghouse model submit MODEL")
    return {"opened": opened}, "\n".join(lines)


# ---------------------------------------------------------------- submit


def open_developer(
    session: Session,
    model: str,
    schema: Path | None,
    seed: int,
    name: str | None,
    ask: str | None = None,
) -> Developer:
    """The developer of a home with one model on offer, `ask` the least it takes in procurements.

    Raises:
        InputError: The model or the schema is wrong, or the model does not fit the schema.
    """
    make = model_source(model, seed)
    agreed = session.schema(schema)
    if model not in RECIPES:
        make(agreed, None)  # what cannot be imported is an error now, not in the middle of a task
    least = None if ask is None else int(parse_money(ask, name="--ask"))
    return _developer(session, agreed, name or Path(model).stem, make, least)


def submit(
    developer: Developer, say: Say, stop: threading.Event, *, wait: bool, request: str | None
) -> Result:
    """Submit the model to the requests that ask for one, opening deliveries as they come.

    Args:
        developer: With the model.
        say: Takes events.
        stop: Ends the waiting.
        wait: Wait until a model was submitted (to this request, if one is named) and scored: its
            nonce is asked for in the middle of the run. One that was submitted before counts where
            its nonce is asked for now, or its request is named.
        request: Id of the request that is waited for.
    """
    worker = Worker(developer, say, SUBMIT)

    def finished() -> bool:
        found = _submitted(developer, worker, request)
        earlier = _earlier(worker, request) - {item["request_id"] for item in found}
        ended = [_has_ended(developer, item["request_id"], item["sha256"]) for item in found]
        ended += [_has_ended(developer, request_id) for request_id in sorted(earlier)]
        return bool(ended) and all(ended)

    if wait:
        if not finished():
            worker.watch(stop, finished)
    else:
        while worker.once(stop):  # a delivery that was opened may be followed by its model's task
            stop.wait(1.0)
    found = _submitted(developer, worker, None)
    if found:
        words = "\n".join(
            f"{item['request_id']}: '{item['name']}' submitted, sha256 {item['sha256']}"
            for item in found
        )
        again = "" if wait else "this command again, as the run asks for its nonce midway; then "
        words += f"\nnext: {again}clearinghouse run list"
    elif wait and not stop.is_set():
        words = (
            "the model was submitted before, and its run has ended\nnext: clearinghouse run list"
        )
    else:
        words = "no request asks this developer for a model yet. Repeat this later, or give --wait"
    return {"submitted": found}, words


def _has_ended(developer: Developer, request_id: str, digest: str | None = None) -> bool:
    """Whether the run of a submitted model, or of all of them, needs the developer no more."""
    path = f"/requests/{request_id}"
    if developer.transport.get(path, RequestView).state != "running":
        return True
    runs = developer.transport.get(f"{path}/runs", RunList).runs
    own = [run for run in runs if run.org_id == developer.org_id]
    own = [run for run in own if digest in (None, run.model_digest)]
    return bool(own) and all(run.state != "running" for run in own)


def _earlier(worker: Worker, request: str | None) -> set[str]:
    """Requests whose model this or an earlier command submitted: the named one, or by the nonce."""
    if request is not None:
        return {request}
    return {view.request_id for view in worker.done.values() if view.task.kind == "nonce.reveal"}


def _submitted(developer: Developer, worker: Worker, request: str | None) -> list[dict[str, Any]]:
    found = []
    for view in worker.done.values():
        if view.task.kind != "model.submit" or request not in (None, view.request_id):
            continue
        stored = developer.keystore.read(f"answers/{view.id}.json")
        answer = developer.answer(view) if stored is not None else None
        if isinstance(answer, ModelSubmitAnswer):
            found.append(
                {"request_id": view.request_id, "name": answer.name, "sha256": answer.model_blob}
            )
    return found
