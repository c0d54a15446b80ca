"""What a recipient checks before it believes a delivery; findings name no value of any record."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clearinghouse import cells
from clearinghouse.client.judged import Judged
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.sealed_body import Body, Entry, read_body
from clearinghouse.errors import ClearinghouseError, InputError, TableError, VerificationError
from clearinghouse.messages.deliveries import DeliveryCheck, DeliveryRef
from clearinghouse.rows import record_bytes, row_leaf
from clearinghouse.schema import Schema
from clearinghouse.tables import Table, from_records
from valuation.ladders import earned, fits


@dataclass(frozen=True, slots=True)
class Opened:
    """A delivery after the checks.

    Attributes:
        ref: What was announced.
        table: Its real records, or None if there are none or it was refused.
        faults: Why it was refused; empty if it was accepted.
        notes: What else was found.
        entries: Its real records with what opens their commitments; none if it was refused.
    """

    ref: DeliveryRef
    table: Table | None
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()

    @property
    def real(self) -> int:
        """Proven records."""
        return 0 if self.table is None else self.table.n

    def check(self, found: Judged) -> DeliveryCheck:
        """The finding as it is sent to the server."""
        problems = [text[:300] for text in (*self.faults, *self.notes, *found.notes)]
        places = Counter(
            entry.place for entry, paid in zip(self.entries, found.paid, strict=True) if paid
        )
        return DeliveryCheck(
            delivery_id=self.ref.delivery_id,
            real=self.real,
            accepted=not self.faults,
            problems=problems,
            earned_micro=earned([(p, price, n) for p, price, n in self.ref.ladder], places),
            copies=list(found.copies),
            forfeits=found.forfeits,
            grounds=list(found.grounds),
        )


def open_delivery(schema: Schema, ref: DeliveryRef, sealed: bytes, keystore: Keystore) -> Opened:
    """Open and check one delivery: seal, form, order, quota, commitments, bounds, cells."""
    try:
        body = read_body(keystore.unseal(sealed))
    except InputError as error:
        return Opened(ref, None, (str(error),))
    real = [entry for entry in body.entries if entry.weight]
    faults = _order_faults(schema, ref, body) + _proof_faults(ref, real)
    if faults or not real:
        return Opened(ref, None, tuple(faults))
    try:
        table = from_records(schema, [entry.record for entry in real], file=ref.delivery_id)
        places = cells.places(table, ref.level, by_label=ref.by_label)
    except TableError as error:
        # Not the error's own words: they may quote the value.
        return Opened(ref, None, (f"record {error.row or 1} breaks the schema",))
    except ClearinghouseError as error:
        return Opened(ref, None, (str(error),))
    strangers = sum(int(place) != entry.place for place, entry in zip(places, real, strict=True))
    if strangers:
        return Opened(ref, None, (f"{strangers} records are of another cell than ordered",))
    return Opened(ref, table, (), tuple(_inside_notes(real)), tuple(real))


def refuse_repeated(deliveries: Sequence[Opened]) -> list[Opened]:
    """Of two deliveries of one source that open the same commitment the later one is refused."""
    seen: dict[str, set[int]] = {}
    result = []
    for item in deliveries:
        own = {entry.proof.index for entry in item.entries}
        known = seen.setdefault(item.ref.source_id, set())
        again = len(own & known)
        known |= own
        words = f"{again} committed rows came in another delivery of this source"
        result.append(
            replace(item, table=None, entries=(), faults=(words,), notes=()) if again else item
        )
    return result


def _order_faults(schema: Schema, ref: DeliveryRef, body: Body) -> list[str]:
    faults = []
    if (body.order_id, body.source_id) != (ref.order_id, ref.source_id):
        faults.append("the sealed body is of another order")
    if len(ref.quota) != cells.n_places(schema, ref.level, by_label=ref.by_label):
        faults.append("the quota does not fit the strata level")
    if not fits(ref.ladder, ref.quota):
        faults.append("the prices of the order do not fit its units")
    found = Counter(entry.place for entry in body.entries)
    if found != Counter({place: n for place, n in enumerate(ref.quota) if n}):
        faults.append("the number of entries of a cell is not its quota")
    real = sum(entry.weight for entry in body.entries)
    if real != ref.real:
        faults.append(f"{real} records came and {ref.real} were announced")
    return faults


def _proof_faults(ref: DeliveryRef, real: Sequence[Entry]) -> list[str]:
    """Every record must open a committed leaf of its source, and each leaf once."""
    faults = []
    root = bytes.fromhex(ref.rows_root)
    altered = unproven = 0
    for entry in real:
        try:
            entry.proof.verify(root, ref.leaves)
        except VerificationError:
            unproven += 1
        if row_leaf(entry.salt, entry.record) != entry.proof.leaf:
            altered += 1
    if unproven:
        faults.append(f"{unproven} records have no proof that leads to the source's root")
    if altered:
        faults.append(f"{altered} records do not open their commitments")
    repeated = len(real) - len({entry.proof.index for entry in real})
    if repeated:
        faults.append(f"{repeated} committed rows were delivered more than once")
    return faults


def _inside_notes(real: Sequence[Entry]) -> list[str]:
    """Equal records of different patients are legal, so they are reported and kept."""
    same = len(real) - len({record_bytes(entry.record) for entry in real})
    return [f"{same} records repeat another record of this source"] if same else []
