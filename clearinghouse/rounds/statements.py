"""What an organisation's accounts did, and what a source's price was over time."""

import re

from clearinghouse.errors import InputError
from clearinghouse.messages.disputes import LineView, OrgStatement, PastPriceView, PriceHistory
from clearinghouse.messages.results import PriceView
from clearinghouse.store.store import Tx

_CURSOR = re.compile(r"([0-9]{1,15})\.(req_[0-9a-z]{20})")


def of_org(tx: Tx, org_id: str) -> OrgStatement:
    """Every posting of the accounts that are an organisation's, with running balances.

    `org:` holds what it earned here, `external:` what it paid in (below zero) less what came back,
    `platform:` the operator's fees.
    """
    accounts = [f"{kind}:{org_id}" for kind in ("external", "org", "platform")]
    balances: dict[str, int] = {}
    lines = []
    for entry in tx.ledger.history(accounts):
        balances[entry.account] = balances.get(entry.account, 0) + entry.amount_micro
        lines.append(
            LineView(
                at_s=entry.at_s,
                request_id=entry.request_id,
                transfer=entry.transfer,
                account=entry.account,
                amount_micro=entry.amount_micro,
                balance_micro=balances[entry.account],
            )
        )
    frozen = tx.ledger.balances("frozen:")
    newest = tx.requests.newest(1)
    return OrgStatement(
        org_id=org_id,
        name=tx.parties.get(org_id).name,
        currency=newest[0].terms.currency if newest else "",  # all requests have the same one
        lines=lines,
        balances=balances,
        frozen={name: sum_ for name, sum_ in frozen.items() if name.endswith(f":org:{org_id}")},
    )


def price_history(
    tx: Tx, source_id: str, org_id: str, cursor: str | None, limit: int
) -> PriceHistory:
    """One page of a source's prices.

    Raises:
        InputError: The cursor is none that this gave out.
    """
    after = (-1, "")
    if cursor is not None:
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise InputError("a cursor is the next_cursor of the page before")
        after = (int(found[1]), found[2])
    page = tx.prices.history(source_id, org_id, after, limit + 1)
    shown = page[:limit]
    last = shown[-1] if len(page) > limit else None
    return PriceHistory(
        source_id=source_id,
        prices=[
            PastPriceView(
                request_id=item.request_id,
                at_s=item.at_s,
                price=PriceView.model_validate_json(item.body),
            )
            for item in shown
        ],
        next_cursor=None if last is None else f"{last.at_s}.{last.request_id}",
    )
