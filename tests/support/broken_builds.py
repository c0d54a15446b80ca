"""Builds that are broken on purpose: a test that cannot see them is worth nothing.

Each puts a well-known mistake in the place of a function of ours, in a test's process alone.

Run as `python broken_builds.py BUILD FOLDER FATAL...` it registers organisations at a server's desk
in one child after another; child number i is killed right after its FATAL[i]-th commit.
"""

import json
import os
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from sqlalchemy import text
from sqlmodel import col

from clearinghouse.clock import FixedClock
from clearinghouse.messages.intake import RegisterOrg
from clearinghouse.rounds import intake
from clearinghouse.rounds.desk import open_desk
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.ledger import Ledger
from clearinghouse.store.logbook import Logbook
from clearinghouse.store.store import Store
from clearinghouse.store.tables import EntryRow

EACH = 4


@contextmanager
def sound():
    """Nothing is broken."""
    yield


@contextmanager
def log_after_commit():
    """Entries are written in a transaction of their own, when what they record is committed."""
    waiting, append, write = [], Logbook.append, Store.write

    def later(self, body):
        waiting.append(body)
        return self.size() + len(waiting) - 1

    @contextmanager
    def write_twice(self):
        with write(self) as tx:
            yield tx
        if waiting:
            with write(self) as tx:
                while waiting:
                    append(tx.log, waiting.pop(0))

    with patch.object(Logbook, "append", later), patch.object(Store, "write", write_twice):
        yield


@contextmanager
def read_then_write(meet):
    """A spend looks at the balance in one transaction and writes in the next.

    The database's own rule against overdrawing is off, too: it would catch what the code lets pass.
    """
    write, seen = Store.write, threading.local()

    @contextmanager
    def look_then_write(self):
        with self.read() as tx:
            seen.balances = tx.ledger.balances("")
        meet()
        with write(self) as tx:
            tx._session.execute(text("PRAGMA ignore_check_constraints = ON"))
            yield tx
            tx._session.flush()
            tx._session.execute(text("PRAGMA ignore_check_constraints = OFF"))

    # replaced once for both threads: each finds what it saw itself
    def balance(_self, account):
        return seen.balances.get(account, 0)

    with patch.object(Ledger, "balance", balance), patch.object(Store, "write", look_then_write):
        yield


@contextmanager
def after_last():
    """The sequencer takes what is above the last id that it took, instead of what it did not."""
    sequence, above = Logbook.sequence, Logbook._waiting

    def sequence_above(self):
        newest = self._session.execute(
            text("SELECT max(id) FROM entry WHERE position IS NOT NULL")
        ).scalar()
        with patch.object(
            Logbook, "_waiting", lambda log: above(log).where(col(EntryRow.id) > (newest or 0))
        ):
            return sequence(self)

    with patch.object(Logbook, "sequence", sequence_above):
        yield


# ---------------------------------------------------------------- children that die after a commit


def register(tx, desk, name):
    """Register an organisation with a fresh key."""
    key = SigningKey.generate().verify_key.base64
    message = RegisterOrg(name=name, role="provider", public_key=key, age_recipient=None)
    return intake.register_org(tx, desk, message)


@contextmanager
def dying(fatal):
    """The process is killed when its `fatal`-th transaction is committed."""
    write, commits = Store.write, [0]

    @contextmanager
    def count(self):
        with write(self) as tx:
            yield tx
        commits[0] += 1
        if commits[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(Store, "write", count):
        yield


def child(build, folder, fatal):
    with dying(fatal), build():
        desk = open_desk(Settings(folder, in_process=True), FixedClock())
        for number in range(EACH):
            with desk.store.write() as tx:
                register(tx, desk, f"org {number}")


def main():
    name, folder, *fatals = sys.argv[1:]
    ends = []
    for fatal in fatals:
        pid = os.fork()
        if pid == 0:
            with ExitStack():
                child(BUILDS[name], Path(folder), int(fatal))
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(ends))


BUILDS = {"sound": sound, "log_after_commit": log_after_commit}

if __name__ == "__main__":
    main()
