"""An organisation's statement as a page to print: no script, no network, no other file."""

from datetime import UTC, datetime
from html import escape

from clearinghouse.messages.disputes import LineView, OrgStatement
from clearinghouse.money import format_money
from clearinghouse.report.words import clean

STYLE = """
@page { size: A4; margin: 18mm }
body { font: 11pt/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem }
p { margin: .3rem 0 } .small { color: #555; font-size: .85rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid #ccc;
  vertical-align: top; overflow-wrap: anywhere }
th { border-bottom: 2px solid #333 } .n { text-align: right; white-space: nowrap }
thead { display: table-header-group } tr { break-inside: avoid }
@media print { body { margin: 0; max-width: none } }
"""

_WORDS = {
    "open": "put into escrow",
    "order": "records delivered",
    "award": "purse for a model",
    "pot": "share of the fairness pot",
    "fee": "platform fee",
    "refund": "returned from escrow",
    "freeze": "frozen by a dispute",
    "withhold": "held for a dispute",
    "purse": "purse held for a dispute",
    "ruling": "moved by a ruling",
    "deposit": "deposit",
    "return": "deposit returned",
    "forfeit": "deposit lost",
}
_ACCOUNTS = {"org": "earned here", "external": "paid in from outside", "platform": "fees"}


def statement_html(statement: OrgStatement) -> str:
    """Render a statement; the same statement gives the same bytes, names are inert text."""
    name = _text(statement.name)
    rows = "".join(_line(line) for line in statement.lines)
    balances = "".join(
        f"<tr><td>{_text(account_words(account))}</td><td class=n>{format_money(amount)}</td></tr>"
        for account, amount in sorted(statement.balances.items())
    )
    balances += "".join(
        f"<tr><td>held by dispute {_text(account.split(':')[1])}</td>"
        f"<td class=n>{format_money(amount)}</td></tr>"
        for account, amount in sorted(statement.frozen.items())
    )
    empty = "" if rows else "<p>No money has moved yet.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Statement of {name}</title><style>{STYLE}</style></head><body>"
        f"<h1>Statement of {name}</h1><p class=small>{_text(statement.org_id)}</p>"
        "<h2>Balances</h2><table><thead><tr><th>account</th>"
        f"<th class=n>{_unit('balance', statement)}</th></tr></thead>"
        f"<tbody>{balances}</tbody></table><h2>Entries</h2>{empty}"
        "<table><thead><tr><th>time (UTC)</th><th>what</th><th>request</th>"
        f"<th class=n>{_unit('amount', statement)}</th>"
        f"<th class=n>{_unit('balance', statement)}</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        "<p class=small>Every entry is one side of a transfer that sums to zero. Amounts are exact "
        "to a millionth.</p></body></html>\n"
    )


def _unit(words: str, statement: OrgStatement) -> str:
    return _text(f"{words}, {statement.currency}" if statement.currency else words)


def _line(line: LineView) -> str:
    when = "-"
    if line.at_s:
        when = datetime.fromtimestamp(line.at_s, UTC).strftime("%Y-%m-%d %H:%M")
    return (
        f"<tr><td>{when}</td><td>{_text(what_words(line))}</td><td>{_text(line.request_id)}</td>"
        f"<td class=n>{format_money(line.amount_micro)}</td>"
        f"<td class=n>{format_money(line.balance_micro)}</td></tr>"
    )


def what_words(line: LineView) -> str:
    """What a line is for, about what, and on which account, in words."""
    parts = line.transfer.split(":")
    kind = parts[1] if len(parts) > 1 else line.transfer
    subject = f" ({parts[2]})" if len(parts) > 2 else ""
    return f"{_WORDS.get(kind, kind)}{subject}; {account_words(line.account)}"


def account_words(account: str) -> str:
    """An organisation's account in words."""
    kind = account.split(":")[0]
    return _ACCOUNTS.get(kind, kind)


def _text(text: str) -> str:
    return escape(clean(text))
