"""What every party does: register once, then poll for tasks and answer each of them once.

An answer is stored before it is sent, so that a crash or a lost connection leads to the same
answer again, never to a second draw of noise or a second opening.
"""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.transport import Transport
from clearinghouse.errors import (
    AuthenticationError,
    ClearinghouseError,
    ConflictError,
    InputError,
    NotFoundError,
    ProtocolError,
    RefusedError,
    SpentError,
    TryAgainError,
    VerificationError,
)
from clearinghouse.failpoints import reach
from clearinghouse.log.witness import ForkError, cosign, observe, party_witness
from clearinghouse.messages.intake import OrgView, RegisterOrg, RegisterSchema, Role, SchemaView
from clearinghouse.messages.tasks import (
    Answer,
    AnswerTask,
    LogCosignAnswer,
    LogCosignTask,
    RefuseTask,
    TaskList,
    TaskView,
)
from clearinghouse.schema import Schema

Emit = Callable[[dict[str, Any]], None]
"""Takes one event; events name tasks, organisations and errors, never a table's values."""

BUSY_S = 0.1
IDLE_S = 1.0
WATCH_S = 30.0
"""So often a party looks at the log as a witness while it polls."""

MAX_REASON = 500


class Party:
    """One organisation on its own machine; roles extend it with `handle`.

    Args:
        name: As others see it.
        role: What it is.
        keystore: Its directory.
        transport: Its calls, signed with the keystore's key.
        schema: The public schema it agreed to.
    """

    def __init__(
        self, name: str, role: Role, keystore: Keystore, transport: Transport, schema: Schema
    ) -> None:
        self.name, self.role, self.keystore = name, role, keystore
        self.transport, self.schema = transport, schema

    def register(self) -> str:
        """Register the organisation and the schema, or find both again; returns the org id."""
        known = self.keystore.recall("org")
        if known is None:
            message = RegisterOrg(
                name=self.name,
                role=self.role,
                public_key=self.keystore.signing_key.verify_key.base64,
                age_recipient=self.keystore.age_recipient,
                witness=party_witness(self.keystore, self.transport.clock).key.vkey,
            )
            key = f"{self.keystore.signing_key.key_id}.register"
            view = self.transport.post("/orgs", message, OrgView, idempotency_key=key)
            schema = self.transport.post(
                "/schemas", RegisterSchema(body=self.schema.to_dict()), SchemaView
            )
            if Schema.from_dict(schema.body) != self.schema:
                raise ProtocolError("the server registered another schema than it was given")
            known = {"org_id": view.id, "schema_id": schema.id}
            self.keystore.remember("org", known)
        return str(known["org_id"])

    @property
    def org_id(self) -> str:
        """The id this organisation was registered under."""
        return str(self._known()["org_id"])

    @property
    def schema_id(self) -> str:
        """The id of its schema."""
        return str(self._known()["schema_id"])

    def _known(self) -> dict[str, str]:
        known = self.keystore.recall("org")
        if known is None:
            raise RefusedError(f"{self.name} is not registered yet; call register first")
        return dict(known)

    def handle(self, view: TaskView) -> Answer:
        """Do what a task asks; roles extend it, every party cosigns the log.

        Raises:
            RefusedError: The party will not do it; the reason goes to the server.
            ProtocolError, VerificationError: What came is not what was agreed; likewise.
        """
        if isinstance(view.task, LogCosignTask):
            vkey, note = cosign(self.transport, self.keystore, view.task.checkpoint)
            return LogCosignAnswer(vkey=vkey, checkpoint=note)
        raise RefusedError(f"a {self.role} takes no {view.task.kind} tasks")

    def idle(self) -> None:
        """Do a little of what saves time later, as nothing waits for this party just now."""

    def answer(self, view: TaskView) -> Answer:
        """The stored answer to a task, or a new one, stored before it is returned."""
        name = f"answers/{view.id}.json"
        stored = self.keystore.read(name)
        if stored is not None:
            return AnswerTask.model_validate_json(stored).answer
        reach("party.asked")
        answer = self.handle(view)
        reach("party.decided")
        self.keystore.write(name, AnswerTask(answer=answer).model_dump_json().encode())
        reach("party.stored")
        return answer


@dataclass(slots=True)
class Visit:
    """A party at work: when it is polled next, and what it has done."""

    party: Party
    due: float = 0.0
    pause: float = BUSY_S
    done: set[str] = field(default_factory=set)
    watched: float = -float("inf")

    def work(self, views: Sequence[TaskView], stop: threading.Event, say: Emit) -> bool:
        """Answer open tasks of the party; whether there was one to answer."""
        busy = False
        for view in views:
            if view.id in self.done or stop.is_set():
                continue
            if do_task(self.party, view, say):
                self.done.add(view.id)
                busy = True
        return busy

    def watch(self, say: Emit) -> None:
        """Look at the log now and then: a party stops working with one that forks.

        Raises:
            ForkError: It did; the evidence is in the party's folder.
        """
        if time.monotonic() - self.watched < WATCH_S:
            return
        party = self.party
        try:
            observe(party.transport, party.keystore)
        except ForkError as error:
            say({"event": "fork", "org": party.name, "message": str(error)})
            raise
        except ClearinghouseError as error:  # it does not show its log: remarkable, but no fork
            say({"event": "unwatched", "org": party.name, "message": str(error)})
        self.watched = time.monotonic()


def run_tasks(
    parties: Sequence[Party],
    stop: threading.Event,
    *,
    busy_s: float = BUSY_S,
    idle_s: float = IDLE_S,
    wait_s: int = 0,
    emit: Emit | None = None,
) -> None:
    """Poll and answer until `stop` is set; one thread visits all parties in turn.

    A party is polled every `busy_s` while anything happens and ever less often, down to every
    `idle_s`, while nothing does. A server that is away is waited for. With `wait_s`, for one party
    alone, the server holds each call back until there is a task or the seconds are over.

    Raises:
        AuthenticationError: The server does not know a party's key.
        ProtocolError: Its list of tasks cannot be read.
        ForkError: The log showed two histories.
    """
    say: Emit = emit if emit is not None else lambda _event: None
    visits = [Visit(party) for party in parties]
    while not stop.is_set():
        for visit in visits:
            if stop.is_set():
                return
            if time.monotonic() < visit.due:
                continue
            if _visit(visit, stop, say, wait_s if len(visits) == 1 else 0):
                for other in visits:  # one's task is often followed by the others'
                    other.due, other.pause = min(other.due, time.monotonic() + busy_s), busy_s
                visit.due = time.monotonic()
            else:
                visit.party.idle()
                visit.due = time.monotonic() + visit.pause
                visit.pause = min(idle_s, visit.pause * 1.5)
        stop.wait(max(0.005, min(visit.due for visit in visits) - time.monotonic()))


def _visit(visit: Visit, stop: threading.Event, say: Emit, wait_s: int) -> bool:
    """Answer every open task of a party; whether there was one."""
    query = f"wait={wait_s}" if wait_s else ""
    try:
        views = visit.party.transport.get("/agent/tasks", TaskList, query=query).tasks
    except TryAgainError as error:
        if not stop.is_set():
            say({"event": "waiting", "org": visit.party.name, "message": str(error)})
        return False
    visit.watch(say)
    return visit.work(views, stop, say)


def do_task(party: Party, view: TaskView, say: Emit) -> bool:
    """Answer or refuse one task; False means that it should be tried again later.

    Raises:
        AuthenticationError: The server does not know the party's key.
    """
    started = time.monotonic()
    try:
        answer = party.answer(view)
    except (TryAgainError, OSError) as error:  # bad luck here or on the way: nothing is lost
        say({"event": "waiting", "org": party.name, "message": type(error).__name__})
        return False
    except Exception as error:  # noqa: BLE001  whatever it is, the server must hear of it
        return _refuse(party, view, error, say)
    key = f"{view.id}.answer"
    try:
        party.transport.send(
            f"/agent/tasks/{view.id}", AnswerTask(answer=answer), idempotency_key=key
        )
    except (ConflictError, NotFoundError) as error:  # too late, or the request has ended
        say(_event("late", party, view, started) | {"reason": str(error)})
        return True
    except AuthenticationError:
        raise
    except (InputError, RefusedError, ProtocolError, VerificationError) as error:
        return _refuse(party, view, error, say)
    except ClearinghouseError:  # away, busy or broken: the stored answer waits
        return False
    reach("party.answered")
    say(_event("task", party, view, started))
    return True


def _refuse(party: Party, view: TaskView, error: Exception, say: Emit) -> bool:
    reason = _reason(view.task.kind, error)
    path, key = f"/agent/tasks/{view.id}/refuse", f"{view.id}.refuse"
    try:
        spent = error.spent_micro if isinstance(error, SpentError) else 0
        message = RefuseTask(reason=reason, spent_micro=spent)
        party.transport.send(path, message, idempotency_key=key)
    except (RefusedError, NotFoundError):
        pass  # it was too late anyway, or the request has ended meanwhile
    except TryAgainError:
        return False
    event = _event("refused", party, view, time.monotonic())
    say(event | {"reason": reason, "where": _where(error)})
    return True


def _event(event: str, party: Party, view: TaskView, started: float) -> dict[str, Any]:
    return {
        "event": event,
        "kind": view.task.kind,
        "org": party.name,
        "request": view.request_id,
        "seconds": round(time.monotonic() - started, 4),
    }


def _reason(kind: str, error: Exception) -> str:
    """Why, in words without row data: only messages written for others leave the party."""
    if isinstance(error, RefusedError | ProtocolError | VerificationError):
        return f"{kind}: {error}"[:MAX_REASON]
    return f"{kind}: not possible here ({type(error).__name__})"


def _where(error: Exception) -> str:
    """File, line and function of an error, for the party's own eyes; no values."""
    if isinstance(error, ValidationError):
        return "a message"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"
