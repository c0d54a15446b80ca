"""One epsilon, told three times: by the log, by each owner's ledger file, and by the report."""

from collections.abc import Mapping
from pathlib import Path

from clearinghouse.errors import VerificationError
from clearinghouse.money import MICRO, format_money
from dp.ledger import Ledger


def ledger_balances(
    directory: Path, owners: Mapping[str, tuple[str, int]]
) -> dict[str, tuple[int, int]]:
    """Spent and limit of each owner, from its own ledger file, in micro-epsilon.

    Args:
        directory: Working folder of the rehearsal.
        owners: Organisation name to its folder (relative) and its limit.
    """
    found = {}
    for name, (folder, limit) in owners.items():
        path = directory / folder / "ledger.sqlite"
        found[name] = (
            Ledger.open(path, limit_micro=limit).balance() if path.exists() else (0, limit)
        )
    return found


def report_budget(balances: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, float]]:
    """The report's `budget`: epsilon as numbers."""
    return {
        name: {"spent": spent / MICRO, "limit": limit / MICRO}
        for name, (spent, limit) in balances.items()
    }


def check_epsilon(
    logged: Mapping[str, int],
    ledgers: Mapping[str, tuple[int, int]],
    reported: Mapping[str, Mapping[str, float]],
) -> None:
    """Hold the three accounts against each other, owner by owner.

    Args:
        logged: Micro-epsilon of the log's release entries, by owner name.
        ledgers: (spent, limit) by owner name.
        reported: The report's `budget`.

    Raises:
        VerificationError: Two of them differ; the message names the owner and both amounts.
    """
    for name in sorted({*logged, *ledgers, *reported}):
        in_log = logged.get(name, 0)
        in_ledger = ledgers.get(name, (0, 0))[0]
        in_report = round(reported.get(name, {}).get("spent", 0) * MICRO)
        if in_log != in_ledger:
            raise VerificationError(
                f"epsilon of {name}: the log's releases sum to {format_money(in_log)}, "
                f"its own ledger says {format_money(in_ledger)}"
            )
        if in_report != in_ledger:
            raise VerificationError(
                f"epsilon of {name}: the report says {format_money(in_report)}, "
                f"its own ledger says {format_money(in_ledger)}"
            )
