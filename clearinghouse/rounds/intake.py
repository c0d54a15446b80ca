"""Step 1, intake: who takes part, what each declares, publishes or seals, and the request."""

import secrets

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes, commitment, digest
from clearinghouse.errors import ConflictError, InputError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import (
    OrgView,
    PublishSummary,
    RegisterOrg,
    RegisterSchema,
    RegisterSource,
    SchemaView,
    SealValset,
    SizeRelease,
    SourceView,
    ValsetView,
)
from clearinghouse.model_columns import columns, strips
from clearinghouse.rounds import views, witnessing
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.schema import Schema
from clearinghouse.signing import VerifyKey
from clearinghouse.store.records import Org, SchemaRecord, Source, Summary, Valset
from clearinghouse.store.store import Tx
from clearinghouse.subgroups import published_subgroups
from dp import size
from secure_eval.params import PARAMETERS
from secure_eval.strips import STRIP_ROWS

MOST_ROWS = 2**31 - 1
"""So many records a source may claim to have."""


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
    tx.parties.add(org)
    hashes = {"public_key": key.digest}
    if message.witness is not None:
        hashes["witness_key"] = witnessing.register(tx, org, message.witness)
    entry_id = desk.record(tx, "org.registered", org, objects={"org": org.id}, hashes=hashes)
    tx.parties.date_key(org.key_id, entry_id)
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
    need_role(caller, "provider")
    tx.cohorts.schema(message.schema_id)
    _check_size(message.size_class, message.size_release)
    check_power("leaves", message.leaves)
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
    need_role(caller, "hospital")
    need_standing(caller)
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
    if "strips" in message.layout:
        expected["strips"] = strips(schema)
        if message.size_release is not None or message.size_class > STRIP_ROWS:
            raise InputError(
                f"a packed set says that it has at most {STRIP_ROWS} rows: its size class is "
                "declared, and not above"
            )
    for name, value in expected.items():
        if message.layout.get(name) != value:
            raise InputError(f"layout.{name} must be {value} by schema and uploads")
    if set(message.layout) != set(expected):
        raise InputError(f"a layout has exactly {', '.join(expected)}")


def _check_size(size_class: int, released: SizeRelease | None) -> None:
    """A declared size class is a power of two; one that was released follows from its number."""
    check_power("size_class", size_class)
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


def need_role(caller: Org, role: str) -> None:
    """Raises RefusedError: the caller has another role."""
    if caller.role != role:
        raise RefusedError(f"only a {role} may do this, and {caller.words} is a {caller.role}")


def need_standing(caller: Org) -> None:
    """Raises RefusedError: the caller is suspended."""
    if caller.suspended:
        raise RefusedError(
            f"{caller.words} is suspended until a dispute is settled: {caller.suspended}"
        )


def check_power(name: str, value: int) -> None:
    """Raises InputError: the value is no power of two."""
    if value & (value - 1):
        raise InputError(f"{name} must be a power of two, not {value}")
