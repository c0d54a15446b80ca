"""Records that go on from one developer to another, under a grant that lets the first one send."""

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.orders import seal
from clearinghouse.client.sealed_body import Body, read_body
from clearinghouse.client.transport import Transport
from clearinghouse.consent import Purpose
from clearinghouse.errors import InputError, NoGrantError, NotFoundError
from clearinghouse.messages.consent import GrantList, OnwardTransfer, OnwardView
from clearinghouse.messages.deliveries import Recipient
from clearinghouse.messages.intake import OrgView


def pass_on(
    keystore: Keystore,
    transport: Transport,
    *,
    request_id: str,
    order_id: str,
    recipient: str,
    purpose: Purpose,
) -> OnwardView:
    """Seal an order's records, which were opened here, to another developer, and hand them over.

    Without a grant that names this sender nothing is sealed at all; the server asks again, and logs
    what it refuses.

    Raises:
        NotFoundError: The order was not opened here.
        NoGrantError: No grant lets this home send to that recipient.
        InputError: The recipient has no key to seal to.
    """
    known = keystore.recall(f"orders/{order_id}")
    if known is None:
        raise NotFoundError(f"no order {order_id} was opened in this home")
    me = keystore.recall("org") or {}
    source_id, blob = str(known["source_id"]), str(known["sealed_blob"])
    given = transport.get("/grants", GrantList, query=f"source_id={source_id}").grants
    mine = [view for view in given if view.sender == me.get("org_id") and view.withdrawn is None]
    if not mine:
        raise NoGrantError(
            f"no grant of {source_id} lets this home pass its records on. Its owner would have to "
            "give one: clearinghouse grant give --sender"
        )
    body = keystore.unseal(transport.get_blob(blob))
    org = transport.get(f"/orgs/{recipient}", OrgView)
    if org.age_recipient is None:
        raise InputError(f"{recipient} has no key that records could be sealed to")
    to = Recipient(org_id=recipient, grant_id=mine[0].id, age_recipient=org.age_recipient)
    message = OnwardTransfer(
        order_id=order_id,
        recipient=recipient,
        purpose=purpose,
        sealed_blob=transport.put_blob(seal(body, [to]), "onward"),
    )
    return transport.post(f"/requests/{request_id}/onward", message, OnwardView)


def open_passed(keystore: Keystore, transport: Transport, view: OnwardView) -> Body:
    """Read what was passed on to this home; each reading is checked and logged by the server.

    Raises:
        NoGrantError: The grant does not cover it any more.
        InputError: It is no delivery, or of another order.
    """
    body = read_body(keystore.unseal(transport.get_blob(view.sealed_blob)))
    if (body.order_id, body.source_id) != (view.order_id, view.source_id):
        raise InputError("what was passed on is of another order than the server says")
    return body
