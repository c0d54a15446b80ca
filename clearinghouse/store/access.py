"""Who may see what, in one place: another organisation's id is answered like an unknown one."""

from sqlmodel import Session

from clearinghouse.errors import NotFoundError, TryAgainError
from clearinghouse.store.cohorts import BlobIndex, Cohorts
from clearinghouse.store.disputes import Disputes
from clearinghouse.store.market import Runs
from clearinghouse.store.records import Dispute, Org, Receipt, Request, Source, Valset
from clearinghouse.store.requests import Requests

MOST_SHOWN = 200
"""Requests on one page."""


class Access:
    """Lookups on behalf of an organisation.

    Every method raises NotFoundError alike for what does not exist and for what is not the
    organisation's, so that ids of others can be neither read nor probed.
    """

    def __init__(self, session: Session) -> None:
        self._cohorts, self._requests = Cohorts(session), Requests(session)
        self._blobs, self._runs = BlobIndex(session), Runs(session)
        self._disputes = Disputes(session)

    def request(self, request_id: str, org_id: str) -> Request:
        """Return a request that the organisation takes part in."""
        if not self._requests.is_party(request_id, org_id):
            raise NotFoundError(f"no request {request_id}")
        return self._requests.get(request_id)

    def requests(self, org: Org) -> tuple[Request, ...]:
        """Return the requests an organisation takes part in, newest first; the operator's are all.

        At most `MOST_SHOWN`. Of others' requests the operator sees here what `/metrics` counts:
        that they are there and where they stand.
        """
        if org.role == "clearinghouse":
            return self._requests.newest(MOST_SHOWN)
        return self._requests.of(org.id, MOST_SHOWN)

    def own_source(self, source_id: str, org_id: str) -> Source:
        """Return a source that belongs to the organisation."""
        source = self._cohorts.source(source_id)
        if source.org_id != org_id:
            raise NotFoundError(f"no source {source_id}")
        return source

    def own_valset(self, valset_id: str, org_id: str) -> Valset:
        """Return a validation set that belongs to the organisation."""
        valset = self._cohorts.valset(valset_id)
        if valset.org_id != org_id:
            raise NotFoundError(f"no validation set {valset_id}")
        return valset

    def valset(self, valset_id: str, org_id: str) -> Valset:
        """Return a validation set of the organisation, or of a request that it takes part in."""
        valset = self._cohorts.valset(valset_id)
        if valset.org_id != org_id and not self._requests.is_party_on(valset_id, org_id):
            raise NotFoundError(f"no validation set {valset_id}")
        return valset

    def blob(self, digest: str, org_id: str) -> None:
        """Return if the organisation uploaded the blob or was sent it."""
        if not self._blobs.readable(digest, org_id):
            raise NotFoundError(f"no blob {digest}")

    def dispute(self, dispute_id: str, org_id: str) -> Dispute:
        """Return a dispute of a request that the organisation takes part in, or its own."""
        dispute = self._disputes.get(dispute_id)
        is_party = self._requests.is_party(dispute.request_id, org_id)
        if not is_party and org_id not in (dispute.opener_id, dispute.respondent_id):
            raise NotFoundError(f"no dispute {dispute_id}")
        return dispute

    def receipt(self, receipt_id: str, org_id: str) -> Receipt:
        """Return a receipt of a request that the organisation takes part in."""
        receipt = self._runs.receipt(receipt_id)
        if not self._requests.is_party(receipt.request_id, org_id):
            raise NotFoundError(f"no receipt {receipt_id}")
        if receipt.draft is not None:
            raise TryAgainError(
                f"receipt {receipt_id} is issued and is written when its log entry has its number, "
                "within a second; repeat the same call"
            )
        return receipt
