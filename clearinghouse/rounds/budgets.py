"""Released epsilon by owner, from the log; and the quota of each owner.

An owner's own ledger is the budget: it refuses before anything is drawn. The server sees what was
released and shows the sum over all of an owner's data, so that neither a new sealed set nor a new
campaign of the same organisation looks like a fresh start; where the operator sets a quota, no
request is opened beyond it.
"""

from collections.abc import Sequence

from clearinghouse.errors import RefusedError
from clearinghouse.messages.budgets import BudgetView, DataBudget, ReleaseView
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.money import format_money
from clearinghouse.noise_laws import epsilon_of_rho
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Org, Release
from clearinghouse.store.store import Tx


def show(tx: Tx, desk: Desk, owner: Org) -> BudgetView:
    """What was released of an organisation's data, and what its open requests may still cost."""
    by_data: dict[str, list[Release]] = {}
    for release in tx.releases.of(owner.id):
        by_data.setdefault(release.data, []).append(release)
    promised = _promised(tx, owner)
    data = [
        DataBudget(
            data_id=data_id,
            size_class=_size_class(tx, data_id),
            epsilon_micro=_meant(by_data.get(data_id, [])),
            rho_micro=sum(item.rho_micro for item in by_data.get(data_id, [])),
            promised_micro=promised.get(data_id, 0),
            releases=[_view(item) for item in by_data.get(data_id, [])],
        )
        for data_id in sorted({*by_data, *promised})
    ]
    return BudgetView(
        owner_id=owner.id,
        epsilon_micro=sum(item.epsilon_micro for item in data),
        promised_micro=sum(promised.values()),
        quota_micro=desk.settings.owner_epsilon_micro or None,
        data=data,
    )


def check_quota(tx: Tx, desk: Desk, owner: Org, message: OpenRequest) -> None:
    """Refuse a request that could bring its owner beyond the quota.

    Raises:
        RefusedError: It could; nothing is opened and nothing spent.
    """
    quota = desk.settings.owner_epsilon_micro
    if not quota:
        return
    found = show(tx, desk, owner)
    used = found.epsilon_micro + found.promised_micro
    if used + message.most_epsilon_micro > quota:
        raise RefusedError(
            f"{owner.words} may release epsilon {format_money(quota)} in this market over all of "
            f"its data; {format_money(used)} is released or promised, and this request could cost "
            f"{format_money(message.most_epsilon_micro)}. Ask for fewer runs or a smaller epsilon"
        )


def _promised(tx: Tx, owner: Org) -> dict[str, int]:
    """By validation set: what open requests may cost, less what they released already."""
    released: dict[str, list[Release]] = {}
    for release in tx.releases.of(owner.id):
        if release.request_id is not None:
            released.setdefault(release.request_id, []).append(release)
    found: dict[str, int] = {}
    for request in tx.requests.running_of(owner.id):
        rest = max(0, request.terms.most_epsilon_micro - _meant(released.get(request.id, [])))
        found[request.valset_id] = found.get(request.valset_id, 0) + rest
    return found


def _meant(releases: Sequence[Release]) -> int:
    """Epsilon of releases about the same patients: the pure lane's sum and what rho means."""
    rho = sum(item.rho_micro for item in releases)
    pure = sum(item.epsilon_micro for item in releases)
    return pure + (epsilon_of_rho(rho) if rho else 0)


def _size_class(tx: Tx, data_id: str) -> int:
    if data_id.startswith("src_"):
        return tx.cohorts.source(data_id).size_class
    return tx.cohorts.sealed(data_id).size_class


def _view(release: Release) -> ReleaseView:
    return ReleaseView(
        kind=release.kind.removesuffix(".released"),  # type: ignore[arg-type]
        epsilon_micro=release.epsilon_micro,
        rho_micro=release.rho_micro,
        request_id=release.request_id,
        run_id=release.run_id,
        entry=release.entry,
        time=release.time,
    )
