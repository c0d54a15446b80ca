"""One of several processes that spend the same money and the same epsilon; prints what it got.

Run as `python spend.py URL REQUEST SOURCE WORKER TURNS`; starts when a line comes on stdin.
"""

import json
import sys

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import ConflictError, RefusedError
from clearinghouse.store.records import Summary
from clearinghouse.store.store import Store


def main() -> None:
    """Spend until the turns are over."""
    url, request_id, source_id, worker, turns = sys.argv[1:]
    store = Store(url)
    paid, published, refused, collisions = [], 0, 0, 0
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(int(turns)):
        name = f"spend:{worker}:{turn}"
        try:
            with store.write() as tx:
                tx.ledger.transfer(name, request_id, {"escrow:r": -1, "org:b": 1})
                tx.log.append(canonical_bytes({"spend": name}))
            paid.append(name)
        except ConflictError:
            collisions += 1
        except RefusedError:
            refused += 1
        try:
            with store.write() as tx:  # an event that shares nothing with others but the log
                tx.log.append(canonical_bytes({"event": name}))
        except ConflictError:
            collisions += 1
        digest = f"{worker}-{turn}".ljust(64, "0")  # every release is another one
        try:
            with store.write() as tx:
                if tx.cohorts.add_summary(Summary(source_id, (), (1,), 1_000_000, digest)):
                    tx.log.append(canonical_bytes({"epsilon": digest}))
                    published += 1
        except ConflictError as error:
            collided = "collides" in str(error)  # not refused: two writers met
            collisions += collided
            refused += not collided
    store.close()
    found = {"paid": paid, "published": published, "refused": refused, "collisions": collisions}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
