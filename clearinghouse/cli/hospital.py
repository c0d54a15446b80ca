"""A hospital by hand: seal the validation set, look at it, run the key agent."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from clearinghouse.cli.files import choose_size_class, pure_limit
from clearinghouse.cli.loop import Say, Worker
from clearinghouse.cli.options import Result, some
from clearinghouse.cli.profile import Session, agreed_schema, check_id
from clearinghouse.client.hospital import Hospital, HospitalTerms
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.own_audits import audit_own, refuted
from clearinghouse.client.runs import DEFAULT_LIMIT_MICRO, DEFAULT_TARGET_MICRO, plan_lanes
from clearinghouse.client.trusted_audits import clear_audited
from clearinghouse.documents import exact_number, shown
from clearinghouse.errors import (
    ClearinghouseError,
    InputError,
    RefusedError,
    VerificationError,
)
from clearinghouse.messages.intake import RequestView, ValsetView
from clearinghouse.money import format_money, micro_epsilon
from clearinghouse.noise_laws import DELTA_WORDS
from clearinghouse.packed_sets import check_rows
from clearinghouse.schema import MAX_LABELS, Schema
from clearinghouse.score_cards import task_of
from clearinghouse.subgroups import left_out_words, published_subgroups
from clearinghouse.tables import Table, read_table

TERMS = "valset-terms"
LOOK_S = 30.0
"""So often an agent looks for audits that it trusts."""

_PACKED = (
    "packed: at most 585 rows, for everybody to see, and scored by linear and additive models only"
)

SPENDS = {"target.noise": "the target", "score.digits": "a score"}


@dataclass(frozen=True, slots=True)
class SealOptions:
    """What `valset seal` was told; None stands for the default or for what was said before."""

    table: Path | None
    schema: Path | None
    size_class: int | None
    epsilon_target: str | None
    limit: str | None
    epsilon_size: str | None = None
    runs: int | None = None
    packed: bool | None = None


def epsilon_option(text: str, option: str) -> int:
    """Millionths of an epsilon given on the command line.

    Raises:
        InputError: It is no number above 0 and at most 100.
    """
    value: Fraction | None = exact_number(text)
    if value is None or not 0 < value <= 100:
        raise InputError(f"{option} must be a number above 0 and at most 100, not {shown(text)}")
    return micro_epsilon(value)


def _size_option(size: int | None) -> int | None:
    if size is not None and (size < 1 or size & (size - 1)):
        below = 1 << (max(1, size).bit_length() - 1)
        raise InputError(f"--size-class must be a power of two, not {size}. Give {below}")
    return size


def seal(session: Session, options: SealOptions) -> Result:
    """Make the encryption key, encrypt the rows, upload and register them: all once.

    Raises:
        InputError: Table, schema or an option is wrong, or differs from what was sealed.
        ProtocolError: The table is not the one that was sealed.
    """
    known = session.keystore.recall(TERMS)
    terms, table = terms_of(session.home, session.keystore, options, known)
    session.join(table.schema)
    session.keystore.remember(TERMS, terms)
    hospital = make_hospital(session, terms, table)
    hospital.seal()
    public = {**terms, "public_size_class": hospital.size.size_class}
    session.keystore.remember(TERMS, public)
    return show(session, None)


def terms_of(
    home: Path, keystore: Keystore, options: SealOptions, known: dict[str, Any] | None
) -> tuple[dict[str, Any], Table]:
    """The terms of the set and its table; only the table's place may differ from before.

    Raises:
        InputError: Table, schema or an option is wrong, or differs from what was said before.
    """
    path = options.table or (Path(known["table"]) if known else None)
    if path is None:
        raise InputError("clearinghouse valset seal needs the TABLE of the validation rows")
    schema = agreed_schema(home, keystore, options.schema)
    if schema.label.n_classes > MAX_LABELS:
        raise InputError(
            f"{path}: the label '{schema.label.name}' has {schema.label.n_classes} levels, and at "
            f"most {MAX_LABELS} can be scored. Join rare levels"
        )
    table = read_table(path, schema)
    declared = _size_option(options.size_class)
    old: dict[str, Any] = known or {}
    size = old.get("size_class") if declared is None else declared
    target, limit = options.epsilon_target, options.limit
    noised = old.get("epsilon_size_micro", 0)
    if options.epsilon_size is not None:
        noised = epsilon_option(options.epsilon_size, "--epsilon-size")
    if noised and declared is not None:
        raise InputError(
            "--size-class and --epsilon-size exclude each other: a size is declared or released "
            "with noise. Leave one out"
        )
    terms: dict[str, Any] = {
        "table": str(path.resolve()),
        "size_class": None if noised else choose_size_class(size, table.n, str(path)),
        "epsilon_size_micro": noised,
        "epsilon_target_micro": old.get("epsilon_target_micro", DEFAULT_TARGET_MICRO)
        if target is None
        else epsilon_option(target, "--epsilon-target"),
        "limit_micro": old.get("limit_micro", DEFAULT_LIMIT_MICRO)
        if limit is None
        else epsilon_option(limit, "--limit"),
        "packed": bool(old.get("packed")) if options.packed is None else options.packed,
    }
    if terms["packed"]:
        check_rows(table.n, is_noised=terms["size_class"] is None)
    runs = old.get("runs") if options.runs is None else options.runs
    if runs is not None:
        terms |= _run_terms(terms, schema, int(runs))
    # the ledger fixes its limits when it is made; the rest may change until the set is sealed
    is_sealed = keystore.recall("valset") is not None
    public = (
        ("size_class", "epsilon_size_micro", "epsilon_target_micro", "packed") if is_sealed else ()
    )
    for key in ("limit_micro", "runs", "pure_limit_micro", "rho_limit_micro", *public):
        if old and old.get(key, 0) != terms.get(key, 0):
            remedy = "Leave the option out, or use another --home for another set"
            if key == "packed":
                form = "--packed" if terms[key] else "--unpacked"
                remedy = f"To change it: clearinghouse valset reseal {form}"
            raise InputError(
                f"this home sealed with {key} {old.get(key)}, not {terms[key]}. {remedy}"
            )
    return terms, table


def _run_terms(terms: dict[str, Any], schema: Schema, runs: int) -> dict[str, Any]:
    """What a set that is sealed for so many runs remembers: the law's terms, and its lanes."""
    label, size = schema.label, terms["size_class"]
    if size is None:
        raise InputError(
            "--runs needs a declared --size-class: the law follows from public numbers"
        )
    plan = plan_lanes(
        terms["limit_micro"],
        terms["epsilon_target_micro"] + terms["epsilon_size_micro"],
        runs,
        groups=len(published_subgroups(schema, size)),
        histograms=label.n_classes if task_of(label) == "classes" else 1,
    )
    return {
        "runs": runs,
        "pure_limit_micro": plan.lanes.micro_epsilon,
        "rho_limit_micro": plan.lanes.micro_rho,
        "run_terms": plan.terms,
        "sd": f"{plan.law.sd:.2f}",
        "geometric_sd": None if plan.other_sd is None else f"{plan.other_sd:.2f}",
    }


def _run_words(terms: dict[str, Any]) -> str:
    """Which law a set that is sealed for many runs has, and why."""
    law, each = terms["run_terms"]["noise_law"], terms["run_terms"]["epsilon_score_micro"]
    total = format_money(terms["limit_micro"])
    if law == "geometric":
        why = "which is less than coins would have for as few"
    elif terms["geometric_sd"] is None:
        why = "geometric noise does not fit as many"
    else:
        why = f"geometric noise would have {terms['geometric_sd']}"
    words = (
        f"sealed for {terms['runs']} runs of epsilon {format_money(each)}: {law} noise of standard "
        f"deviation {terms['sd']} a count, {why}"
    )
    if not terms["rho_limit_micro"]:
        return f"{words}\nthey and one target add up to epsilon {total}, the budget for life"
    return (
        f"{words}\nthat is each run alone, at delta 1e-6 a table; all of them and one target mean "
        f"epsilon {total} together at delta 1e-6, for they add up in rho: {DELTA_WORDS}"
    )


def make_hospital(session: Session, terms: dict[str, Any], table: Table) -> Hospital:
    """The hospital of a home."""
    return Hospital(
        session.profile.name,
        session.keystore,
        session.transport,
        table,
        HospitalTerms(
            size_class=terms["size_class"],
            epsilon_target_micro=int(terms["epsilon_target_micro"]),
            limit_micro=pure_limit(terms),
            rho_limit_micro=int(terms.get("rho_limit_micro", 0)),
            epsilon_size_micro=int(terms.get("epsilon_size_micro", 0)),
            packed=bool(terms.get("packed")),
        ),
    )


def open_hospital(session: Session) -> Hospital:
    """The hospital of a home whose set was sealed before.

    Raises:
        RefusedError: None was.
        ProtocolError: The table is not the one that was sealed.
    """
    terms, known = session.keystore.recall(TERMS), session.keystore.recall("valset")
    if terms is None or known is None:
        raise RefusedError(
            f"{session.home} has no sealed validation set. Run: clearinghouse valset seal TABLE "
            "--schema schema.yaml"
        )
    hospital = make_hospital(session, terms, read_table(terms["table"], session.schema()))
    hospital.seal()  # sealed already: this compares the table with what was sealed
    return hospital


def show(session: Session, valset_id: str | None) -> Result:
    """A validation set as its owner and the parties of its requests see it."""
    known = session.keystore.recall("valset")
    if valset_id is None and known is None:
        raise InputError(
            f"{session.home} has no sealed validation set. Run: clearinghouse valset seal TABLE "
            "--schema schema.yaml"
        )
    own = known["valset_id"] if known else None
    wanted = own if valset_id is None else check_id(valset_id, "val", "validation set")
    view = session.transport.get(f"/valsets/{wanted}", ValsetView)
    value: dict[str, Any] = view.model_dump()
    level = " x ".join(view.level) or "all patients together"
    lines = [
        f"{view.id}: sealed, size class {view.size_class}, cells: {level}",
        f"rows committed under {view.commitment}",
        *([_PACKED] if view.packed else []),
    ]
    commitment = session.keystore.recall("private/commitment")
    terms = session.keystore.recall(TERMS)
    if wanted == own and commitment is not None and terms is not None:
        value["uploads"] = len(commitment["uploads"])
        value["epsilon_target"] = format_money(terms["epsilon_target_micro"])
        lines.append(
            f"uploaded: {some(len(commitment['uploads']), 'encrypted block')} and the public keys; "
            "the secret key is in this home only"
        )
        if "runs" in terms:
            lines.append(_run_words(terms))
        lost = left_out_words(session.schema(), view.size_class)
        lines += [lost] if lost else []
        lines.append("next: clearinghouse request open REQUEST.yaml, clearinghouse agent run")
    return value, "\n".join(lines)


# ---------------------------------------------------------------- the agent


def run_agent(
    session: Session,
    hospital: Hospital,
    say: Say,
    stop: threading.Event,
    *,
    until: str | None,
    trusted: Collection[str] = (),
) -> Result:
    """Answer the hospital's tasks until stopped, or until a request has ended.

    Args:
        session: Of the hospital.
        hospital: With its key agent.
        say: Takes events.
        stop: Ends it.
        until: Id of the request that is waited for, if any.
        trusted: Key ids of auditors whose reproduced runs free the key's openings.

    Raises:
        RefusedError: The request that was waited for failed.
        VerificationError: A replay of a test or target refuted the server: nothing is answered on.
    """
    budget = hospital.budget
    ended: list[RequestView] = []

    def tell(event: dict[str, Any]) -> None:
        if event.get("kind") in SPENDS:
            event = {**event, "spent": format_money(budget.spent)}
            event["limit"] = format_money(budget.limit)
        say(event)

    looked = [-LOOK_S]
    replayed = [-1]

    def replay() -> None:
        """Clear own openings when half of them are used, once for each number of them."""
        used = hospital.agent.quota.used
        if used <= hospital.agent.quota.limit // 2 or used == replayed[0]:
            return
        replayed[0] = used
        try:
            audits = audit_own(hospital)
        except ClearinghouseError as error:  # tried again when more openings are used
            say({"event": "audit", "org": hospital.name, "message": f"not replayed: {error}"})
            return
        replayed[0] = hospital.agent.quota.used
        for item in audits:
            words = f"the {item.what} of {item.name}: {item.state}, {item.reason}"
            say({"event": "audit", "org": hospital.name, "message": words})
        if refuted(audits):
            raise VerificationError(refuted(audits))

    def finished() -> bool:
        replay()
        if trusted and time.monotonic() - looked[0] >= LOOK_S:
            looked[0] = time.monotonic()
            for run, told in clear_audited(hospital, frozenset(trusted)).items():
                say({"event": "audit", "org": hospital.name, "message": f"{run}: {told}"})
        if until is None:
            return False
        view = session.transport.get(f"/requests/{until}", RequestView)
        if view.state != "running":
            ended.append(view)
        return bool(ended)

    worker = Worker(hospital, tell)
    if until is not None:
        finished()  # an unknown id is an error now, not after the first task
    if not ended:
        worker.watch(stop, finished)
    spent = f"epsilon {format_money(budget.spent)} of {format_money(budget.limit)} spent"
    value: dict[str, Any] = {
        "event": "stopped",
        "answered": len(worker.done),
        "spent": format_money(budget.spent),
        "limit": format_money(budget.limit),
        "request_state": ended[-1].state if ended else None,
    }
    if ended and ended[-1].state == "failed":
        raise RefusedError(f"request {until} failed: {ended[-1].reason}. {spent}")
    done = f"request {until} is done; " if ended else ""
    return value, f"{done}{len(worker.done)} tasks answered, {spent}"
