"""A provider asked to bid and to deliver, without a server that asks."""

from clearinghouse.client.consents import record_columns
from clearinghouse.client.provider import SourceTerms
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import DeliverTask
from clearinghouse.messages.tasks import AskCommitTask, TaskView

TERMS = SourceTerms(64, 2_000_000, 1_000_000, 1_000_000)
REQUEST = new_id("req")
PRICE = 2_500_000


def view(task, request_id=REQUEST):
    return TaskView(id=new_id("tsk"), request_id=request_id, deadline=2**33, task=task)


def deliver(
    provider, quota, recipients, level=("sex",), order=None, seed=bytes(32), skip=(), price=PRICE
):
    return DeliverTask(
        order_id=order or new_id("ord"),
        source_id=provider.source_id,
        level=list(level),
        quota=list(quota),
        skip=list(skip),
        ladder=[[place, price, units] for place, units in enumerate(quota) if units],
        draw_seed=seed.hex(),
        purpose="train models",
        attributes=list(record_columns(provider.schema)),
        recipients=[named(provider, recipient) for recipient in recipients],
    )


def named(provider, recipient):
    """A recipient by the provider's own grant."""
    (grant,) = provider.consents.granted()
    return recipient.model_copy(update={"grant_id": grant.id})


def sell(provider, quota, recipients, **others):
    provider.handle(view(AskCommitTask(source_id=provider.source_id, frozen_digest="0" * 64)))
    return provider.handle(view(deliver(provider, quota, recipients, **others)))
