"""A hospital's validation rows: sealed once under a key of its own, and again under a new one."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells, model_columns, packed_sets
from clearinghouse.canonical import canonical_bytes, commitment
from clearinghouse.client import sizes
from clearinghouse.client.budget import open_budget
from clearinghouse.client.key_agent import UPLOAD_STATE, KeyAgent
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.opening_quota import OPENING_LIMIT
from clearinghouse.client.outbox import Outbox
from clearinghouse.client.party import Party
from clearinghouse.client.transport import Transport
from clearinghouse.errors import ProtocolError, RefusedError
from clearinghouse.failpoints import reach
from clearinghouse.messages.intake import RequestView, SealValset, ValsetView
from clearinghouse.subgroups import published_subgroups
from clearinghouse.tables import Table
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.layout import Layout

__all__ = ["MOST_PLACES", "ORDER_FILE", "TARGET_SHARE", "HospitalTerms", "SealedRows"]

TARGET_SHARE = 1.0
"""A request's level has at most as many cells x labels as epsilon x size class."""

MOST_PLACES = 160
"""Each cell x label is one opening of the target, and half a key's openings are for the scores."""

KEY_FILE = "he.key"
ORDER_FILE = "private/order.bin"
SEALING = "private/sealing"
"""Order and shape of a set that is sealed and not yet registered; its blocks are in the outbox."""


@dataclass(frozen=True, slots=True)
class HospitalTerms:
    """What a hospital decides about its validation set.

    Attributes:
        size_class: Power of two not above its rows, stated without looking at them; None to
            release a noised number of rows instead.
        epsilon_target_micro: What opening a target will cost; fixes the strata level.
        limit_micro: Most epsilon these patients may ever cost in the pure lane.
        epsilon_size_micro: Spent once on the noised number of rows, where no class is declared.
        opening_limit: Most openings of one key that no replay has cleared.
        rho_limit_micro: Most rho they may ever cost in the zCDP lane (`runs.plan_lanes`).
        packed: Whether up to 585 rows are packed, for linear and additive models only.
    """

    size_class: int | None
    epsilon_target_micro: int
    limit_micro: int
    epsilon_size_micro: int = 0
    opening_limit: int = OPENING_LIMIT
    rho_limit_micro: int = 0
    packed: bool = False


class SealedRows(Party):
    """A hospital's table, its key, and the set that was registered of it."""

    def __init__(
        self,
        name: str,
        keystore: Keystore,
        transport: Transport,
        table: Table,
        terms: HospitalTerms,
    ) -> None:
        super().__init__(name, "hospital", keystore, transport, table.schema)
        self.table, self.terms = table, terms
        if terms.packed:
            packed_sets.check_rows(table.n, is_noised=terms.size_class is None)
        self.budget = open_budget(keystore, table, terms.limit_micro, terms.rho_limit_micro)
        self._agent: KeyAgent | None = None
        self._checked_targets: set[str] = set()
        self._size: sizes.PublicSize | None = None

    # ---------------------------------------------------------------- sealing

    @property
    def size(self) -> sizes.PublicSize:
        """What is published about the number of rows; a noised one is paid at the first call."""
        if self._size is None:
            declared, rows = self.terms.size_class, self.table.n
            if declared is None:
                epsilon = self.terms.epsilon_size_micro
                self._size = sizes.released(self.budget, self._rows_digest(), rows, epsilon)
            else:
                self._size = sizes.declared(declared, rows)
        return self._size

    @property
    def level(self) -> tuple[str, ...]:
        """The strata level of the sealed cells: public inputs only."""
        return cells.finest_level(
            self.schema,
            epsilon_micro=self.terms.epsilon_target_micro,
            size_class=self.size.size_class,
            share=TARGET_SHARE,
            most=MOST_PLACES,
        )

    def seal(self) -> str:
        """Encrypt the rows, upload them and register the validation set, once; returns its id.

        Raises:
            ProtocolError: The table is not the one that was sealed before.
        """
        known = self.keystore.recall("valset")
        if known is None:
            known = self._seal()
        if known["rows_sha256"] != self._rows_digest():
            raise ProtocolError(f"the table of {self.name} is not the one that was sealed")
        return str(known["valset_id"])

    def _seal(self) -> dict[str, Any]:
        holder = self._holder()
        sealed = self._kept_or_sealed(holder)
        keys_blob = self.transport.put_blob(holder.public_keys(), "valset.keys")
        uploads = [self.transport.put_blob(blob, "valset.block") for blob in sealed.blobs]
        order = sealed.order.astype("<i8").tobytes()
        body = {
            "rows_sha256": self._rows_digest(),
            "order_sha256": hashlib.sha256(order).hexdigest(),
            "keys": keys_blob,
            "uploads": uploads,
        }
        salt, committed = commitment(body)
        message = SealValset(
            schema_id=self.schema_id,
            size_class=self.size.size_class,
            size_release=self.size.release,
            level=list(self.level),
            layout=json.loads(sealed.layout.to_json()),
            keys_blob=keys_blob,
            upload_blobs=uploads,
            commitment=committed,
        )
        self.keystore.write(ORDER_FILE, order)
        self.keystore.remember("private/commitment", {**body, "salt": salt.hex()})
        reach("agent.sealed")
        view = self.transport.post(
            "/valsets",
            message,
            ValsetView,
            idempotency_key=f"{self.org_id}.valset.{committed[:32]}",
        )
        known = {
            "valset_id": view.id,
            "rows_sha256": body["rows_sha256"],
            "layout": sealed.layout.to_json(),
            "level": list(self.level),
            "commitment": committed,
        }
        self.keystore.remember("valset", known)
        self._forget_sealing(len(uploads))
        return known

    def _kept_or_sealed(self, holder: KeyHolder) -> SealedSet:
        """The set that an earlier process sealed and did not finish to upload, or a new one.

        Sealing anew would give other bytes, which would all have to travel again.
        """
        fits = {
            "rows_sha256": self._rows_digest(),
            "keys": hashlib.sha256(holder.public_keys()).hexdigest(),
            "level": list(self.level),
            "packed": self.terms.packed,
        }
        known = self.keystore.recall(SEALING)
        if known is not None and all(known.get(name) == value for name, value in fits.items()):
            layout = Layout.from_json(known["layout"])
            order = np.frombuffer(bytes.fromhex(known["order"]), dtype="<i8").astype(np.int64)
            kept = [self._outbox.kept(f"block.{index}") for index in range(layout.n_blocks)]
            blobs = tuple(blob for blob in kept if blob is not None)
            if [hashlib.sha256(blob).hexdigest() for blob in blobs] == known["blobs"]:
                return SealedSet(layout, blobs, order)
        sealed = self._sealed(holder)
        for index, blob in enumerate(sealed.blobs):
            self._outbox.keep(f"block.{index}", blob)
        kept_now = {
            "layout": sealed.layout.to_json(),
            "order": sealed.order.astype("<i8").tobytes().hex(),
            "blobs": [hashlib.sha256(blob).hexdigest() for blob in sealed.blobs],
        }
        self.keystore.remember(SEALING, {**fits, **kept_now})
        reach("hospital.sealed")
        return sealed

    def _forget_sealing(self, n_blocks: int) -> None:
        self.keystore.forget(f"{SEALING}.json")
        for index in range(n_blocks):
            self._outbox.forget(f"block.{index}")

    @property
    def _outbox(self) -> Outbox:
        return Outbox(self.keystore, self.transport)

    def reseal(self, *, abandon: bool = False) -> str:
        """Seal the same rows under a new key and register them as a new set; returns its id.

        The old key opens nothing any more, so no request on the old set may be running, unless it
        is to be abandoned: then its open tasks are refused, and it ends by itself. The ledger
        and the models that were scored carry on: the patients are the same. What broke off before
        the new set was registered is done again.

        Raises:
            ProtocolError: The table is not the one that was sealed.
            RefusedError: Nothing was sealed, or a request on the set is running.
        """
        old = self.check_reseal(abandon=abandon)
        names = (KEY_FILE, ORDER_FILE, UPLOAD_STATE, "private/openings.json", "valset.json")
        for name in names:  # the set last: what broke off before it is done again
            path = self.keystore.path(name)
            if path.exists():
                path.rename(self.keystore.path(f"private/old/{old}/{path.name}"))
        self._agent = None
        return self.seal()

    def check_reseal(self, *, abandon: bool) -> str:
        """Check what `reseal` demands; returns the id of the set that it would replace.

        Raises:
            ProtocolError: The table is not the one that was sealed.
            RefusedError: Nothing was sealed, or a request on the set is running.
        """
        known = self._valset()
        if not abandon:
            self._check_idle(str(known["valset_id"]))
        if known["rows_sha256"] != self._rows_digest():
            raise ProtocolError(f"the table of {self.name} is not the one that was sealed")
        return str(known["valset_id"])

    def _check_idle(self, valset_id: str) -> None:
        for path in sorted(self.keystore.directory.glob("requests/req_*.json")):
            view = self.transport.get(f"/requests/{path.stem}", RequestView)
            if view.state == "running" and view.terms.valset_id == valset_id:
                raise RefusedError(
                    f"{view.id} is running on this set, and a new key could not answer it. "
                    "Let it end (clearinghouse agent run --until), or abandon it (--abandon)"
                )

    def _holder(self) -> KeyHolder:
        path = self.keystore.path(KEY_FILE)
        if path.exists():
            return KeyHolder.load(path)
        holder = KeyHolder.generate()
        holder.save(path)
        return holder

    def _sealed(self, holder: KeyHolder) -> SealedSet:
        groups = {
            name: (
                self.schema.stratum_codes(self.table, name),
                len(self.schema.stratum_names(name)),
            )
            for name in published_subgroups(self.schema, self.size.size_class)
        }
        return holder.seal(
            model_columns.encode(self.schema, self.table),
            self._label_codes(),
            cells.n_labels(self.schema),
            cells.cells(self.table, self.level),
            cells.codebook(self.schema, self.level).n_cells,
            groups,
            strips=model_columns.strips(self.schema) if self.terms.packed else (),
        )

    def _label_codes(self) -> NDArray[np.int64]:
        """Class of each row: its level, or the stratum of its number."""
        return self.schema.label.codes(self.table.labels)

    def _rows_digest(self) -> str:
        return hashlib.sha256(canonical_bytes(self.table.records())).hexdigest()

    def _valset(self) -> dict[str, Any]:
        known = self.keystore.recall("valset")
        if known is None:
            raise RefusedError(f"{self.name} has no sealed validation set yet; call seal first")
        return dict(known)
