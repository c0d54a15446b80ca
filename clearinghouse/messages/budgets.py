"""What the log says was released of an owner's data, and what is promised to open requests."""

from typing import Literal

from clearinghouse.messages.base import Count, Id, Message, Micro

ReleaseKind = Literal["size", "summary", "target", "run"]


class ReleaseView(Message):
    """One release."""

    kind: ReleaseKind
    epsilon_micro: Micro
    rho_micro: Micro = 0
    """Taken from the zCDP lane of the owner's ledger instead of epsilon from the pure one."""
    request_id: Id | None
    run_id: Id | None
    entry: Count | None
    """Index in the log."""
    time: str


class DataBudget(Message):
    """What was released of one source or validation set."""

    data_id: Id
    size_class: Count
    epsilon_micro: Micro
    """Sum of its releases, which are about the same patients; with what `rho_micro` means."""
    rho_micro: Micro = 0
    """Sum of the zCDP lane; at delta 1e-6 it means the rest of `epsilon_micro`."""
    promised_micro: Micro
    """What open requests may still cost it."""
    releases: list[ReleaseView]


class BudgetView(Message):
    """GET /v1/budgets: the caller's own data, as the log has it.

    `epsilon_micro` is the sum over all of the owner's data: the figure for a patient who is in
    every one of its tables. A new campaign or a new sealed set does not start from zero.
    """

    owner_id: Id
    epsilon_micro: Micro
    promised_micro: Micro
    quota_micro: Micro | None
    """Most that this market opens requests for, whatever the owner's own ledger allows."""
    data: list[DataBudget]
