"""What a provider checks of an order before it draws a row, and the parcel that it answers with."""

import hashlib
from collections.abc import Sequence

import pyrage

from clearinghouse.canonical import canonical_bytes
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import ProtocolError, RefusedError
from clearinghouse.messages.deliveries import DeliverTask, Recipient
from clearinghouse.rows import SPOT_ROWS
from valuation.ladders import fits


def check_prices(keystore: Keystore, request_id: str, task: DeliverTask) -> None:
    """Every ordered unit must have a price, and none below the ask that was committed.

    A spot check has none: it opens a few rows for a share of the pot.

    Raises:
        RefusedError: One has not, or is.
    """
    ask = int(keystore.recall(f"asks/{request_id}")["ask_micro"])
    if not fits(task.ladder, task.quota):
        raise RefusedError("the prices of the order do not fit its units")
    if task.spot_check:
        if sum(task.quota) > SPOT_ROWS:
            raise RefusedError(f"a spot check is of at most {SPOT_ROWS} rows")
        return
    if any(price < ask for _, price, _ in task.ladder):
        raise RefusedError("the order has a price below the ask of this source")


def ordered_before(keystore: Keystore, request_id: str, task: DeliverTask) -> list[int]:
    """What an earlier order of the request took, remembered before anything is drawn.

    Raises:
        RefusedError: There were two, or the task would have rows delivered twice.
    """
    name = f"orders/{request_id}"
    orders = (keystore.recall(name) or {}).get("orders", [])
    if task.order_id not in [order["order_id"] for order in orders]:
        if len(orders) > 1 or (task.spot_check and orders):
            raise RefusedError("a third order, or a late spot check, came for one request")
        taken = orders[0]["quota"] if orders else [0] * len(task.quota)
        if (task.skip or [0] * len(task.quota)) != taken:
            raise RefusedError("a second order came for one request, for the rows of the first")
        order = {"order_id": task.order_id, "quota": list(task.quota), "skip": task.skip}
        keystore.remember(name, {"orders": [*orders, order]})
        return task.skip
    (known,) = (order for order in orders if order["order_id"] == task.order_id)
    if (known["quota"], known["skip"]) != (task.quota, task.skip):
        raise RefusedError("an order came again with other rows")
    return task.skip


def parcel(task: DeliverTask) -> str:
    """Name of an order's sealed records while they are on their way, to just these recipients."""
    keys = [item.age_recipient for item in task.recipients]
    return f"{task.order_id}.{hashlib.sha256(canonical_bytes(keys)).hexdigest()[:16]}"


def seal(body: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Encrypt a body to every recipient's age key.

    Raises:
        ProtocolError: A recipient's key is malformed.
    """
    try:
        keys = [pyrage.x25519.Recipient.from_str(item.age_recipient) for item in recipients]
    except pyrage.RecipientError:
        raise ProtocolError("a recipient's age key is malformed") from None
    return bytes(pyrage.encrypt(body, keys))
