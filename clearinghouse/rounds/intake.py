"""Step 1, intake: who takes part, what each declares, publishes or seals, and the request."""

import json
import secrets
from collections.abc import Sequence

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes, commitment, digest
from clearinghouse.errors import ConflictError, InputError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import (
    OpenRequest,
    OrgView,
    PublishSummary,
    Purse,
    RegisterOrg,
    RegisterSchema,
    RegisterSource,
    SchemaView,
    SealValset,
    SizeRelease,
    SourceView,
    ValsetView,
)
from clearinghouse.model_columns import columns
from clearinghouse.money import MICRO
from clearinghouse.rounds import budgets, views, witnessing
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.terms import budget_micro
from clearinghouse.rounds.turns import check_rho, noise_tables
from clearinghouse.schema import Schema
from clearinghouse.score_cards import PURSE_METRICS, purse_metrics, task_of
from clearinghouse.signing import VerifyKey
from clearinghouse.store.records import Org, Request, SchemaRecord, Source, Summary, Valset
from clearinghouse.store.store import Tx
from clearinghouse.subgroups import left_out_words, published_subgroups
from dp import size
from secure_eval.params import PARAMETERS

MOST_ROWS = 2**31 - 1
"""So many records a source may claim to have."""

LEAST_FOR_ONE_PRIZE = 2000
"""Patients; below, the best of 20 models a point apart is first in fewer than 9 of 10 contests."""

MOST_POT_MICRO = 100_000
"""A pot above a tenth of the budget would no longer leave prices to the market."""


def register_org(tx: Tx, desk: Desk, message: RegisterOrg) -> OrgView:
    """Register an organisation under the key that signed the call; again gives the same answer.

    Raises:
        ConflictError: The key is registered with another name, role or recipient.
        InputError: A developer gives no age recipient, or the witness key is malformed or
            another's.
    """
    key = VerifyKey.from_base64(message.public_key)
    if message.role == "developer" and message.age_recipient is None:
        raise InputError("a developer needs an age_recipient: records are sealed to it")
    known = tx.parties.by_key(key.key_id)
    if known is not None:
        told = (message.name, message.role, message.age_recipient)
        if (known.name, known.role, known.age_recipient) != told:
            raise ConflictError(f"the key {key.key_id} is registered with other details")
        return views.org(known)
    org = Org(
        new_id("org"), message.name, message.role, key.key_id, key.base64, message.age_recipient
    )
    tx.parties.add(org, tx.log.size())
    hashes = {"public_key": key.digest}
    if message.witness is not None:
        hashes["witness_key"] = witnessing.register(tx, org, message.witness)
    desk.record(tx, "org.registered", org, objects={"org": org.id}, hashes=hashes)
    return views.org(org)


def register_schema(tx: Tx, message: RegisterSchema) -> SchemaView:
    """Store a schema; the same schema gets the same id.

    Raises:
        InputError: It is no schema, or not in the form that `Schema.to_dict` writes.
    """
    schema = Schema.from_dict(message.body, file="schema")
    if schema.to_dict() != message.body:
        raise InputError("the schema must be in its normal form: send what Schema.to_dict() gives")
    body = canonical_bytes(message.body).decode()
    return views.schema(tx.cohorts.add_schema(SchemaRecord(new_id("sch"), schema.digest(), body)))


def register_source(tx: Tx, desk: Desk, caller: Org, message: RegisterSource) -> SourceView:
    """Register a committed cohort.

    Raises:
        RefusedError: The caller is no provider.
        NotFoundError: There is no such schema.
        InputError: Size class or leaves are no powers of two, or do not fit each other.
    """
    _need_role(caller, "provider")
    tx.cohorts.schema(message.schema_id)
    _check_size(message.size_class, message.size_release)
    _check_power("leaves", message.leaves)
    released = message.size_release
    if released and message.leaves != size.room(released.noised, released.epsilon_micro):
        raise InputError("leaves must follow from the noised size that was released")
    if message.leaves < 2 * message.size_class:
        raise InputError("leaves must be at least twice the size class, so that padding hides n")
    source = Source(
        new_id("src"),
        caller.id,
        message.name,
        message.schema_id,
        message.size_class,
        message.rows_root,
        message.leaves,
        published=False,
    )
    tx.cohorts.add_source(source)
    committed = desk.record(
        tx,
        "source.registered",
        caller,
        objects={"source": source.id, "owner": caller.id, "schema": source.schema_id},
        hashes={"rows_root": source.rows_root},
        amounts={"leaves": source.leaves, "size_class": source.size_class},
    )
    tx.cohorts.date_source(source.id, committed)
    _record_size(tx, desk, caller, "source", source.id, message.size_release)
    return views.source(source)


def publish_summary(
    tx: Tx, desk: Desk, caller: Org, source_id: str, message: PublishSummary
) -> SourceView:
    """Store a source's one DP release; the identical one again changes nothing.

    Raises:
        NotFoundError: The source is not the caller's.
        ConflictError: Another summary was published before.
        InputError: Level or number of counts do not fit the schema, or epsilon is 0.
    """
    source = tx.access.own_source(source_id, caller.id)
    if source.withdrawn:
        raise RefusedError(f"source {source.id} was withdrawn; register the rows as a new source")
    schema = read_schema(tx.cohorts.schema(source.schema_id))
    wanted = cells.codebook(schema, message.level).n_cells * cells.n_labels(schema)
    if len(message.counts) != wanted:
        found = len(message.counts)
        raise InputError(f"this level has {wanted} counts (cells x labels), not {found}")
    if sum(map(abs, message.counts)) > MOST_ROWS:
        raise InputError(f"the counts of a summary sum to at most {MOST_ROWS}")
    if message.epsilon_micro < 1:
        raise InputError("epsilon_micro must be above 0")
    told = digest(message.model_dump(mode="json"))
    level, counts = tuple(message.level), tuple(message.counts)
    summary = Summary(source.id, level, counts, message.epsilon_micro, told)
    if tx.cohorts.add_summary(summary):
        salted = commitment(message.model_dump(mode="json"))
        tx.erasure.keep_salt(source.id, salted.salt)
        desk.record(
            tx,
            "summary.released",
            caller,
            objects={"source": source.id, "owner": caller.id},
            hashes={"release": salted.digest},
            amounts={"epsilon_micro": message.epsilon_micro},
        )
    return views.source(tx.cohorts.source(source.id))


def seal_valset(tx: Tx, desk: Desk, caller: Org, message: SealValset) -> ValsetView:
    """Register an encrypted validation set whose blobs are all uploaded.

    The seed of its tests is drawn here, before anything comes of it.

    Raises:
        RefusedError: The caller is no hospital, or is suspended.
        InputError: A blob is missing, or the level is not the schema's.
    """
    _need_role(caller, "hospital")
    _need_standing(caller)
    schema = read_schema(tx.cohorts.schema(message.schema_id))
    _check_size(message.size_class, message.size_release)
    check_layout(schema, message)
    for blob in (message.keys_blob, *message.upload_blobs):
        tx.blobs.size(blob, caller.id)
    body = message.model_dump(mode="json")
    valset = Valset(
        new_id("val"),
        caller.id,
        message.schema_id,
        canonical_bytes(body).decode(),
        secrets.token_hex(32),
    )
    tx.cohorts.add_valset(valset)
    desk.record(
        tx,
        "valset.sealed",
        caller,
        objects={"valset": valset.id, "owner": caller.id, "schema": valset.schema_id},
        hashes={"manifest": digest(body)},
        commit=message.commitment,
    )
    _record_size(tx, desk, caller, "valset", valset.id, message.size_release)
    return views.valset(valset)


def check_layout(schema: Schema, message: SealValset) -> None:
    """Check that a sealed set has the shape its schema says, block by block.

    Raises:
        InputError: It has not; the message names the first field that differs.
    """
    expected = {
        "version": PARAMETERS.version,
        "n_blocks": len(message.upload_blobs),
        "columns": len(columns(schema)),
        "labels": cells.n_labels(schema),
        "cells": cells.codebook(schema, message.level).n_cells,
        "groups": [
            [name, len(schema.stratum_names(name))]
            for name in published_subgroups(schema, message.size_class)
        ],
    }
    for name, value in expected.items():
        if message.layout.get(name) != value:
            raise InputError(f"layout.{name} must be {value} by schema and uploads")
    if set(message.layout) != set(expected):
        raise InputError(f"a layout has exactly {', '.join(expected)}")


def open_request(tx: Tx, desk: Desk, caller: Org, message: OpenRequest) -> Request:
    """Open a request and put its whole budget into escrow.

    Raises:
        NotFoundError: The validation set is not the caller's, or a source or developer is unknown.
        RefusedError: The caller is no hospital or is suspended, its validation set failed its
            tests, or a source has not published.
        InputError: The terms do not fit together.
        QuotaError: The caller has as many requests running as it may.
    """
    _need_role(caller, "hospital")
    _need_standing(caller)
    tx.quotas.check_open(caller.id, desk.settings.open_requests)
    valset = tx.access.own_valset(message.valset_id, caller.id)
    if valset.verdict == "failed":
        raise RefusedError(f"validation set {valset.id} failed its tests: {valset.reason}")
    sealed = SealValset.model_validate(json.loads(valset.body))
    party_ids = _check_request(tx, message, valset, sealed)
    budgets.check_quota(tx, desk, caller, message)
    told = digest(message.model_dump(mode="json"))
    request = Request(
        new_id("req"), caller.id, valset.id, message, told, "intake", "running", "", 0
    )
    now = desk.clock.now()
    tx.requests.add(request, party_ids, now)
    blobs = [("valset.keys", sealed.keys_blob)]
    blobs += [("valset.upload", blob) for blob in sealed.upload_blobs]
    for kind, blob in blobs:
        tx.requests.moved(request.id, kind, blob, tx.blobs.size(blob, caller.id))
    budget = budget_micro(message)
    amounts = {f"external:{caller.id}": -budget, f"escrow:{request.id}": budget}
    tx.ledger.transfer(f"{request.id}:open", request.id, amounts, at_s=int(now))
    desk.record(
        tx,
        "request.opened",
        caller,
        objects={"request": request.id, "valset": valset.id, "owner": caller.id},
        hashes={"terms": request.terms_digest},
        amounts={
            "escrow_micro": budget,
            "runs": message.most_runs,
            "most_epsilon_micro": message.most_epsilon_micro,
            **({"rho_run_micro": message.rho_score_micro} if message.rho_score_micro else {}),
        },
    )
    tx.requests.enter(request.id, "match", now)
    return tx.requests.get(request.id)


def _check_request(
    tx: Tx, message: OpenRequest, valset: Valset, sealed: SealValset
) -> tuple[str, ...]:
    """Check the terms and return the organisations they admit."""
    sources = [tx.cohorts.source(source_id) for source_id in message.source_ids]
    developers = [tx.parties.get(org_id) for org_id in message.developer_ids]
    check_terms(message, valset, sources, developers)
    schema = read_schema(tx.cohorts.schema(valset.schema_id))
    kept = published_subgroups(schema, sealed.size_class)
    groups = [(name, len(schema.stratum_names(name))) for name in kept]
    classes = schema.label.n_classes if task_of(schema.label) == "classes" else 1
    tables = noise_tables(message.epsilon_score_micro, 2, 1, groups, message.noise_law, classes)
    check_rho(message, [table.coins for table in tables])
    check_purse(message.purse, sealed, schema)
    check_size(message, float(cells.codebook(schema, sealed.level).distances().max()))
    return (*(source.org_id for source in sources), *(org.id for org in developers))


def check_terms(
    terms: OpenRequest, valset: Valset, sources: Sequence[Source], developers: Sequence[Org]
) -> None:
    """Check that the parts of a request fit together.

    Raises:
        InputError: Something comes twice, is of another schema or role, or is out of range.
        RefusedError: A source has not published its summary.
    """
    for name, ids in (("source", terms.source_ids), ("developer", terms.developer_ids)):
        if len(set(ids)) < len(ids):
            raise InputError(f"a {name} is named twice; name each once")
    for source in sources:
        if source.schema_id != valset.schema_id:
            raise InputError(f"source {source.id} has another schema than the validation set")
        if source.withdrawn:
            raise RefusedError(f"source {source.id} was withdrawn by its owner; leave it out")
        if not source.published:
            raise RefusedError(f"source {source.id} has not published its summary yet")
    for org in developers:
        if org.role != "developer" or org.age_recipient is None:
            raise InputError(f"{org.id} is no developer; only developers score models")
    if terms.most_runs > len(terms.developer_ids):
        raise InputError("runs goes up to the number of developers: each model is scored once")
    if terms.tariff_micro < 1:
        raise InputError("tariff_micro must be above 0")
    if terms.fairness_pot_micro > MOST_POT_MICRO:
        raise InputError(f"fairness_pot_micro goes up to {MOST_POT_MICRO} (a tenth)")
    is_share = terms.purse.metric in PURSE_METRICS
    if (
        is_share and terms.purse.threshold_micro > MICRO
    ) or not MICRO // 2 <= terms.purse.confidence_micro < MICRO:
        raise InputError(
            "the purse's threshold goes up to 1 (unless it is an error of a number) and its "
            "confidence from 0.5 to below 1"
        )


def check_purse(purse: Purse, sealed: SealValset, schema: Schema) -> None:
    """Check that a purse's rule can be applied to what this validation set releases.

    Raises:
        InputError: It cannot, or one prize takes all where chance decides who is first.
    """
    if purse.metric not in purse_metrics(schema.label):
        raise InputError(
            f"the purse's metric must be one of {', '.join(purse_metrics(schema.label))} for the "
            f"label '{schema.label.name}', not {purse.metric}"
        )
    if purse.fairness is not None and not schema.label.is_binary:
        raise InputError("a fairness floor needs a label of two levels")
    if purse.kind == "contest":
        if purse.prizes != sorted(purse.prizes, reverse=True):
            raise InputError("the prizes of a contest must fall from rank to rank")
        if len(purse.prizes) == 1 and sealed.size_class < LEAST_FOR_ONE_PRIZE:
            raise InputError(
                f"one prize takes all from {LEAST_FOR_ONE_PRIZE} patients on: with fewer, chance "
                "decides between good models. Give several prizes, such as 50, 30, 20"
            )
    if purse.fairness is not None:
        kept = published_subgroups(schema, sealed.size_class)
        known = [group for group in kept if group in sealed.level]
        if purse.fairness.attribute not in known:
            why = left_out_words(schema, sealed.size_class)
            raise InputError(
                "the fairness floor's attribute must be a subgroup that the sealed set's strata "
                f"level tells apart: one of {', '.join(known) or 'none here'}"
                + (f"; {why}" if why else "")
            )


def check_size(terms: OpenRequest, longest: float) -> None:
    """Check that the clearing's integers stay in range, before anything is opened.

    Args:
        terms: What is asked for.
        longest: Largest distance between two cells of the request's level.

    Raises:
        InputError: They would not.
    """
    furthest = longest + terms.label_cost_micro / MICRO
    if terms.distance_price_micro * furthest * terms.records >= 2**58:
        raise InputError(
            "distance_price_micro x (longest distance + label cost) x records is too large to "
            "clear; lower one of them"
        )
    if budget_micro(terms) >= 2**53:
        raise InputError("the budget is beyond 2**53 micro-units; ask for fewer records")


def _check_size(size_class: int, released: SizeRelease | None) -> None:
    """A declared size class is a power of two; one that was released follows from its number."""
    _check_power("size_class", size_class)
    if released is None:
        return
    if released.epsilon_micro < size.LEAST_EPSILON_MICRO:
        raise InputError(f"a size costs at least {size.LEAST_EPSILON_MICRO} millionths of epsilon")
    if size_class != size.size_class(released.noised, released.epsilon_micro):
        raise InputError("size_class must follow from the noised size that was released")


def _record_size(
    tx: Tx, desk: Desk, caller: Org, kind: str, data_id: str, released: SizeRelease | None
) -> None:
    """Log the release of a noised n: it cost its owner epsilon."""
    if released is not None:
        desk.record(
            tx,
            "size.released",
            caller,
            objects={kind: data_id, "owner": caller.id},
            hashes={"release": digest(released.model_dump(mode="json"))},
            amounts={"epsilon_micro": released.epsilon_micro},
        )


def _need_role(caller: Org, role: str) -> None:
    if caller.role != role:
        raise RefusedError(f"only a {role} may do this, and {caller.words} is a {caller.role}")


def _need_standing(caller: Org) -> None:
    if caller.suspended:
        raise RefusedError(
            f"{caller.words} is suspended until a dispute is settled: {caller.suspended}"
        )


def _check_power(name: str, value: int) -> None:
    if value & (value - 1):
        raise InputError(f"{name} must be a power of two, not {value}")
