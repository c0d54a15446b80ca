"""A process that dies by kill -9 at a chosen step of a release, again and again.

Run as `python ledger_kills.py WHERE UNIT LIMIT FOLDER FATAL...`: one child for each FATAL, which
releases under the key of its number and kills itself as statement number FATAL begins; 0 lives.
Prints, for each child, how it ended and how many steps it took. In FOLDER each child leaves what
it drew and what it sent.
"""

import json
import os
import secrets
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import psycopg

from dp.ledger import Ledger

COST = 400


class Steps:
    """Counts statements and steps, and dies at one of them."""

    def __init__(self, fatal: int) -> None:
        self.count, self.fatal = 0, fatal

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def watch(step: Steps) -> None:
    """Have both drivers tell of every statement as it begins."""
    real_connect = sqlite3.connect
    real_execute = psycopg.Connection.execute

    def connect(*args: Any, **keywords: Any) -> sqlite3.Connection:
        connection = real_connect(*args, **keywords)
        connection.set_trace_callback(step)
        return connection

    def execute(self: Any, *args: Any, **keywords: Any) -> Any:
        step()
        return real_execute(self, *args, **keywords)

    sqlite3.connect = connect
    psycopg.Connection.execute = execute


def child(ledger: Ledger, number: int, fatal: int, folder: Path) -> None:
    """One release; its marks: before the draw, after it, before sending."""
    step = Steps(fatal)
    watch(step)

    def draw() -> bytes:
        step()
        answer = secrets.token_bytes(8)
        with (folder / f"{number}.drawn").open("ab") as stream:
            stream.write(answer)
        step()
        return answer

    sent = ledger.release(f"key {number}", "body", COST, draw, "crash test")
    step()
    (folder / f"{number}.sent").write_bytes(sent)
    (folder / f"{number}.steps").write_text(str(step.count))


def main() -> None:
    """One child after another."""
    where, unit, limit, folder, *fatals = sys.argv[1:]
    ledger = Ledger.open(where, unit=unit, limit_micro=int(limit))
    ended = []
    for number, fatal in enumerate(fatals):
        pid = os.fork()
        if pid == 0:
            child(ledger, number, int(fatal), Path(folder))
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        steps = Path(folder) / f"{number}.steps"
        ended.append([os.waitstatus_to_exitcode(status), steps.exists() and steps.read_text()])
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
