"""`valset audit` and `valset reseal`: what keeps a hospital's key in use, and what replaces it."""

from collections.abc import Callable
from typing import Any

from clearinghouse.cli.hospital import TERMS, open_hospital
from clearinghouse.cli.options import Result
from clearinghouse.cli.profile import Session
from clearinghouse.client.own_audits import audit_own, refuted
from clearinghouse.errors import VerificationError
from clearinghouse.money import format_money
from clearinghouse.packed_sets import check_rows

__all__ = ["audit", "reseal", "verdict"]

_STATES = {"cleared": "reproduced", "refuted": "REFUTED", "open": "not cleared"}


def audit(session: Session, say: Callable[[str], None]) -> Result:
    """Replay the tests and targets of the home's set, and clear the openings of honest ones.

    Args:
        session: Of the hospital.
        say: Told what is done now.

    Raises:
        RefusedError: Nothing was sealed.
    """
    hospital = open_hospital(session)
    audits = audit_own(hospital, say)
    quota = hospital.agent.quota
    value: dict[str, Any] = {
        "valset_id": hospital.keystore.recall("valset")["valset_id"],
        "audits": [
            {
                "name": item.name,
                "what": item.what,
                "openings": item.openings,
                "state": item.state,
                "message": item.message,
                "reason": item.reason,
            }
            for item in audits
        ],
        "openings_counted": quota.used,
        "openings_limit": quota.limit,
        "problem": refuted(audits),
    }
    lines = [
        f"the {item.what} of {item.name}: {_STATES[item.state]}, {item.openings} openings: "
        f"{item.reason}"
        for item in audits
    ] or ["no tests or targets of this key are left to replay"]
    rest = "; runs are cleared by audits that you trust (agent run --trust-audits)"
    lines.append(
        f"{quota.used} of {quota.limit} openings of the key count as not replayed"
        + (rest if quota.used else "")
    )
    return value, "\n".join(lines)


def verdict(value: dict[str, Any]) -> None:
    """Turn a refuted replay into the exit code of a failed check.

    Raises:
        VerificationError: The server deviated.
    """
    if value["problem"]:
        raise VerificationError(value["problem"])


def reseal(session: Session, *, abandon: bool, packed: bool | None = None) -> Result:
    """Seal the rows under a new key, as a new set.

    Args:
        session: Of the hospital.
        abandon: Also while a request on the old set is running.
        packed: In which form; as before if None.

    Raises:
        InputError: Too many rows for a packed set.
        RefusedError: Nothing was sealed, or a request on the set is running.
        ProtocolError: The table is not the one that was sealed.
    """
    hospital = open_hospital(session)
    old = str(hospital.keystore.recall("valset")["valset_id"])
    if packed is not None:
        if packed:
            check_rows(hospital.table.n, is_noised=hospital.terms.size_class is None)
        hospital.check_reseal(abandon=abandon)
        # before anything of the old set is put away: what breaks off goes on in the new form
        terms = session.keystore.recall(TERMS) or {}
        session.keystore.remember(TERMS, {**terms, "packed": packed})
        hospital = open_hospital(session)
    new = hospital.reseal(abandon=abandon)
    budget = hospital.budget
    value = {
        "id": new,
        "replaces": old,
        "openings_counted": hospital.agent.quota.used,
        "openings_limit": hospital.agent.quota.limit,
        "spent": format_money(budget.spent),
        "limit": format_money(budget.limit),
    }
    lines = [
        f"{new}: sealed again under a new key, in place of {old}",
        f"the old key is kept in {session.home / 'private' / 'old' / old} and opens nothing more; "
        "delete it when no dispute about the old set is open",
        f"epsilon {value['spent']} of {value['limit']} is spent as before: the patients are the "
        "same. Models that were scored are not scored again",
        "next: clearinghouse request open REQUEST.yaml, clearinghouse agent run",
    ]
    return value, "\n".join(lines)
