"""Step 1: keys, API keys and people of the caller's organisation."""

from fastapi import APIRouter
from starlette.responses import Response

from api.bodies import takes
from api.calls import Call, CallOf
from clearinghouse.messages.identity import (
    AddKey,
    AddPerson,
    ApiKeyList,
    ApiKeyView,
    CreateApiKey,
    KeyList,
    KeyView,
    PersonList,
)
from clearinghouse.rounds import identity
from clearinghouse.signing import VerifyKey

router = APIRouter(prefix="/v1", tags=["identity"])


@router.post("/keys", openapi_extra=takes(AddKey))
def add_key(call: CallOf) -> KeyView:
    """Add a key to the caller's organisation; it signs from its log entry on."""
    message = call.message(AddKey)
    call.write(lambda tx: identity.add_key(tx, call.desk, call.org, message))
    return _shown(call, VerifyKey.from_base64(message.public_key).key_id)


def _shown(call: Call, key_id: str) -> KeyView:
    """A key after its act is committed, when its log entry has its index."""
    with call.desk.store.read() as tx:
        return identity.own_key(tx, call.org, key_id)


@router.get("/keys")
def list_keys(call: CallOf) -> KeyList:
    """All keys the caller's organisation has or had."""
    with call.desk.store.read() as tx:
        return KeyList(keys=[identity.key_view(key) for key in tx.parties.keys(call.org.id)])


@router.delete("/keys/{key_id}")
def revoke_key(call: CallOf, key_id: str) -> KeyView:
    """Revoke a key of the caller's organisation; what it signed before stays valid."""
    call.write(lambda tx: identity.revoke_key(tx, call.desk, call.org, key_id))
    return _shown(call, key_id)


@router.post("/apikeys", response_model=ApiKeyView, openapi_extra=takes(CreateApiKey))
def create_api_key(call: CallOf) -> Response:
    """Register an API key by prefix and hash; the token stays with its maker."""
    message = call.message(CreateApiKey)
    return call.write(lambda tx: identity.create_api_key(tx, call.desk, call.org, message))


@router.get("/apikeys")
def list_api_keys(call: CallOf) -> ApiKeyList:
    """The API keys of the caller's organisation."""
    with call.desk.store.read() as tx:
        return ApiKeyList(keys=[identity.api_key_view(key) for key in tx.apikeys.of(call.org.id)])


@router.delete("/apikeys/{apikey_id}", response_model=ApiKeyView)
def revoke_api_key(call: CallOf, apikey_id: str) -> Response:
    """Revoke an API key."""
    return call.write(lambda tx: identity.revoke_api_key(tx, call.desk, call.org, apikey_id))


@router.post("/people", response_model=PersonList, openapi_extra=takes(AddPerson))
def add_person(call: CallOf) -> Response:
    """Let a person look at the organisation's part of the console."""
    message = call.message(AddPerson)
    return call.write(lambda tx: identity.add_person(tx, call.org, message))


@router.get("/people")
def list_people(call: CallOf) -> PersonList:
    """The people of the caller's organisation."""
    with call.desk.store.read() as tx:
        return PersonList(people=list(tx.people.of(call.org.id)))


@router.delete("/people/{email}", response_model=PersonList)
def remove_person(call: CallOf, email: str) -> Response:
    """Let a person in no more; that person's sessions end."""
    return call.write(lambda tx: identity.remove_person(tx, call.org, email))
