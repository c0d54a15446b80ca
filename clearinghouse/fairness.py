"""Which job comes next: the order in which a worker is offered what waits. Pure.

Urgent kinds first; what has waited too long counts as urgent, so that nothing starves. Among equals
the tenant with the fewest jobs at work, then the one served longest ago: whoever sends a thousand
jobs delays another's one job by one turn. A run that is warm in another process (its ciphertexts
are in that memory) is left to it for a while.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OVERDUE_S = 600.0
"""A job that has waited so long goes before every priority."""

WARM_S = 2.0
"""So long a job is left to the process that has its run in memory."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job, as far as its turn depends on it.

    Attributes:
        home: Worker and slot that has its run in memory, if there is one.
        since: When it was queued, seconds since 1970.
    """

    id: str
    tenant: str
    priority: int
    since: float
    home: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What each tenant has had.

    Attributes:
        busy: Jobs at work by tenant.
        served: Number of the tenant's latest turn; those that never had one are absent.
    """

    busy: Mapping[str, int]
    served: Mapping[str, int]


def line(waiting: Iterable[Waiting], standing: Standing, now: float, slot: str = "") -> list[str]:
    """Ids of the waiting jobs in the order in which this slot should try to take them.

    Args:
        waiting: Every queued job that may run now.
        standing: What tenants have had.
        now: Seconds since 1970.
        slot: Who asks; empty to see the line as such.
    """

    def rank(job: Waiting) -> tuple[bool, int, int, int, str, bool, float, str]:
        is_overdue = now - job.since >= OVERDUE_S
        return (
            not is_overdue,
            0 if is_overdue else -job.priority,
            standing.busy.get(job.tenant, 0),
            standing.served.get(job.tenant, 0),
            job.tenant,
            job.home != slot,
            job.since,
            job.id,
        )

    return [job.id for job in sorted(waiting, key=rank) if _may_take(job, now, slot)]


def _may_take(job: Waiting, now: float, slot: str) -> bool:
    return not slot or job.home in ("", slot) or now - job.since >= WARM_S
