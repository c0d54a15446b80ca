"""Step 1, intake: a customer opens a request; its terms are checked and its money is put aside."""

import json
from collections.abc import Sequence

from clearinghouse import cells
from clearinghouse.canonical import digest
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import (
    OpenRequest,
    Purse,
    SealValset,
)
from clearinghouse.money import MICRO
from clearinghouse.rounds import budgets
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.intake import need_role, need_standing
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.terms import budget_micro
from clearinghouse.rounds.turns import check_rho, noise_tables
from clearinghouse.schema import Schema
from clearinghouse.score_cards import PURSE_METRICS, purse_metrics, task_of
from clearinghouse.store.records import Org, Request, Source, Valset
from clearinghouse.store.store import Tx
from clearinghouse.subgroups import left_out_words, published_subgroups

LEAST_FOR_ONE_PRIZE = 2000
"""Patients; below, the best of 20 models a point apart is first in fewer than 9 of 10 contests."""

MOST_POT_MICRO = 100_000
"""A pot above a tenth of the budget would no longer leave prices to the market."""


def open_request(tx: Tx, desk: Desk, caller: Org, message: OpenRequest) -> Request:
    """Open a request and put its whole budget into escrow.

    Raises:
        NotFoundError: The validation set is not the caller's, or a source or developer is unknown.
        RefusedError: The caller is no hospital or is suspended, its validation set failed its
            tests, or a source has not published.
        InputError: The terms do not fit together, or are in another currency than the books.
        QuotaError: The caller has as many requests running as it may.
    """
    need_role(caller, "hospital")
    need_standing(caller)
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
    _check_currency(tx, message)  # after the log, so that of two first requests one sees the other
    tx.requests.enter(request.id, "match", now)
    return tx.requests.get(request.id)


def _check_currency(tx: Tx, message: OpenRequest) -> None:
    """One server, one currency: accounts add up what an organisation earns in all requests."""
    for other in tx.requests.newest(2):
        kept = other.terms.currency
        if kept != message.currency:
            raise InputError(
                f"this clearinghouse keeps its books in {kept}, and the request is in "
                f"{message.currency}. Write currency: {kept}"
            )


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
        TryAgainError: A source has no place in the log yet.
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
        _ = source.place  # deliveries name it
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
