"""What a worker's process keeps between its jobs: open runs, and the processes for their blocks."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clearinghouse.blobs import BlobStore
from clearinghouse.block_pool import BlockPool
from secure_eval.checked import CheckedScoringRun
from secure_eval.class_run import ClassesScoringRun
from secure_eval.layout import ReadParts
from secure_eval.run_inputs import BlockStep

__all__ = ["Jobs", "Run"]

MOST_KEPT = 2
"""Runs whose ciphertexts stay in memory."""

Run = CheckedScoringRun | ClassesScoringRun
"""The evaluator's side of a run: one model, or one for each class, with the same rounds."""


class Jobs:
    """The worker's state: open runs, in order of last use."""

    def __init__(self, blobs: BlobStore, pool: BlockPool | None = None) -> None:
        self.blobs, self._pool = blobs, pool
        self.parts = ReadParts()
        self._runs: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def keep(self, run_id: str, stage: str, run: Any) -> None:
        """Remember a run that has come to a stage; the least used one makes room."""
        self._runs = OrderedDict(
            (key, value) for key, value in self._runs.items() if key[0] != run_id
        )
        self._runs[(run_id, stage)] = run
        while len(self._runs) > MOST_KEPT:
            self._runs.popitem(last=False)

    def take(self, run_id: str, stage: str) -> Any:
        """Return the run at exactly this stage, or None."""
        return self._runs.pop((run_id, stage), None)

    @contextmanager
    def shared(self, run: Run, step: BlockStep, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Share the units of a run's step with the other processes while its message is made."""
        if self._pool is None:
            yield
            return
        run.compute_elsewhere(self._pool.begin(step, run.units, arguments))
        try:
            yield
        except BaseException:
            self._pool.close()  # they may be in the middle of their units
            raise
        finally:
            run.compute_elsewhere(None)

    def send(self, data: bytes) -> dict[str, Any]:
        """Store a message and name it."""
        return {"blob": self.blobs.put(data), "size": len(data)}
