"""Processes that spend the same money and the same epsilon at once; prints what each one got.

Run as `python spend.py URL REQUEST SOURCE WORKERS TURNS`: so many processes begin together.
"""

import json
import os
import sys

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import ConflictError, RefusedError
from clearinghouse.store.records import Summary
from clearinghouse.store.store import Store


def spend(store: Store, request_id: str, source_id: str, worker: int, turns: int) -> object:
    """Spend until the turns are over."""
    paid, published, refused, collisions = [], 0, 0, 0
    for turn in range(turns):
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
    return {"paid": paid, "published": published, "refused": refused, "collisions": collisions}


def child(url: str, request_id: str, source_id: str, worker: int, turns: int) -> None:
    """One process: ready when a byte is out, off when the gate closes; its answer goes last."""
    store = Store(url)
    os.write(READY[1], b"r")
    os.read(GATE[0], 1)
    found = spend(store, request_id, source_id, worker, turns)
    store.close()
    os.write(ANSWERS[1], (json.dumps(found) + "\n").encode())  # at most a pipe's atomic write


def main() -> None:
    """Fork the processes, open the gate, wait for all."""
    url, request_id, source_id, workers, turns = sys.argv[1:]
    children = []
    for worker in range(int(workers)):
        pid = os.fork()
        if pid == 0:
            os.close(GATE[1])
            child(url, request_id, source_id, worker, int(turns))
            os._exit(0)
        children.append(pid)
    os.close(ANSWERS[1])
    for _ in children:
        os.read(READY[0], 1)
    os.close(GATE[1])  # everybody's read ends at this moment
    with os.fdopen(ANSWERS[0]) as answers:
        found = [json.loads(line) for line in answers]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    print(json.dumps({"codes": codes, "found": found}))


READY, GATE, ANSWERS = os.pipe(), os.pipe(), os.pipe()

if __name__ == "__main__":
    main()
