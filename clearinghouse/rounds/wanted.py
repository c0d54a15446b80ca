"""Open requests as providers may see them: what is wanted, for what, at which price.

Only released numbers are shown: a request's terms, and its target once that was opened with noise.
"""

import json
from collections.abc import Sequence

from clearinghouse import cells
from clearinghouse.messages.consent import OpenRequestList, OpenRequestView, WantedPlace
from clearinghouse.messages.intake import SealValset
from clearinghouse.messages.results import TargetView
from clearinghouse.rounds.levels import read_schema
from clearinghouse.schema import Schema
from clearinghouse.store.records import Request, SchemaRecord
from clearinghouse.store.store import Tx

MOST_REQUESTS = 200
MOST_PLACES = 64


def open_requests(tx: Tx, schema_id: str | None) -> OpenRequestList:
    """Running requests whose orders are not placed yet, of one schema or of all."""
    found = []
    for request in tx.requests.running():
        valset = tx.cohorts.valset(request.valset_id)
        before = request.step in ("intake", "match", "clear")
        if before and schema_id in (None, valset.schema_id):
            sealed = SealValset.model_validate(json.loads(valset.body))
            record = tx.cohorts.schema(valset.schema_id)
            found.append(_view(tx, request, record, sealed.level))
    return OpenRequestList(requests=found[:MOST_REQUESTS])


def _view(tx: Tx, request: Request, record: SchemaRecord, level: list[str]) -> OpenRequestView:
    schema, terms = read_schema(record), request.terms
    body = tx.requests.document(request.id, "target")
    return OpenRequestView(
        id=request.id,
        org_id=request.org_id,
        schema_id=record.id,
        schema_digest=record.digest,
        step=request.step,
        purpose=terms.purpose,
        records=terms.records,
        currency=terms.currency,
        tariff_micro=terms.tariff_micro,
        level=level,
        wanted=[] if body is None else _places(schema, TargetView.model_validate_json(body)),
        takes_asks=not tx.asks.of(request.id),
        terms_digest=request.terms_digest,
    )


def _places(schema: Schema, target: TargetView) -> list[WantedPlace]:
    codes = cells.codebook(schema, target.level).codes()
    labels = list(schema.label.levels) if target.label_cost_applied else [None]
    found = [
        WantedPlace(
            cell=_words(schema, target.level, codes[place // len(labels)]),
            label=labels[place % len(labels)],
            records=count,
        )
        for place, count in enumerate(target.wanted)
        if count
    ]
    return sorted(found, key=lambda item: -item.records)[:MOST_PLACES]


def _words(schema: Schema, level: list[str], codes: Sequence[int]) -> str:
    return schema.cell_words(tuple(level), tuple(int(code) for code in codes)) or "all"
