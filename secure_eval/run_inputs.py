"""What a scoring run is given, checked for shape: all that its messages are a function of.

The same for the process that leads a run and for those that compute some of its blocks.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

from numpy.typing import NDArray

from secure_eval.coins import CoinPlan
from secure_eval.comparison import Grid, grid
from secure_eval.integer_model import IntegerModel
from secure_eval.layout import MAX_CELLS, Layout, Shapes, Upload
from secure_eval.prg import Prg
from secure_eval.public_keys import PublicKeys
from secure_eval.sampler import ZeroSampler

__all__ = ["BlockStep", "Elsewhere", "RunInputs", "seeded_prg"]

_SEED_BYTES = 32

BlockStep = Literal["score", "early", "shares", "final", "openings"]
"""Messages of which every block's part can be made by itself."""

Elsewhere = Callable[[BlockStep, int], list[NDArray[Any]] | None]
"""Returns `ScoringRun.block_arrays` of another process, or None if it is to be made here."""


def _checked_map(column_map: Sequence[int], wanted: int, uploaded: int) -> list[int]:
    columns = [int(index) for index in column_map]
    if len(columns) != wanted:
        raise ValueError(f"column_map: expected {wanted} indices, got {len(columns)}")
    if len(set(columns)) != wanted or any(not 0 <= index < uploaded for index in columns):
        raise ValueError(f"column_map: expected distinct indices below {uploaded}")
    return columns


def seeded_prg(seed: bytes, *context: bytes | str) -> Prg:
    """Return the generator of a 32-byte secret seed and public context.

    Raises:
        ValueError: a seed of another length.
    """
    if len(seed) != _SEED_BYTES:
        raise ValueError(f"seed: expected {_SEED_BYTES} bytes, got {len(seed)}")
    return Prg("evaluator", seed, *context)


class RunInputs:
    """Keys, sealed set, model, seed and names of one run, and the shapes that follow."""

    _CHECKED = True

    def __init__(
        self,
        keys: bytes,
        layout: Layout,
        upload: Sequence[bytes],
        model: IntegerModel,
        column_map: Sequence[int],
        seed: bytes,
        run_id: str,
        server_nonce: bytes,
        *,
        groups: Sequence[str] | None = None,
        coins: Sequence[int] = (),
    ) -> None:
        """Check all shapes; no ciphertext is touched yet.

        Args:
            keys: the public keys' message.
            layout: shape of the sealed set.
            upload: one blob per block.
            model: what to evaluate.
            column_map: for each model column, its index among the uploaded columns; distinct.
            seed: 32 secret bytes from the operating system.
            run_id: unique name of the run.
            server_nonce: goes into the noise; bound into the masks here.
            groups: attributes to open, by default all of the layout.
            coins: committed coins per cell of each table; none under the geometric law.

        Raises:
            ValueError: anything malformed.
        """
        self._keys = PublicKeys.from_bytes(keys)
        self._upload = self.upload = Upload(layout, upload)
        self._layout = layout
        self._model = self.model = model
        self._columns = self.columns = _checked_map(column_map, len(model.columns), layout.columns)
        self.groups = tuple(dict(layout.groups)) if groups is None else tuple(groups)
        self._group_parts = [layout.group_parts(name) for name in self.groups]
        self._grid: Grid = grid(model.bins)
        self.n_cells = self._histogram_cells + sum(map(len, self._group_parts))
        if self.n_cells > MAX_CELLS:
            raise ValueError(f"tables: at most {MAX_CELLS} cells, got {self.n_cells}")
        self._plan = self._coin_plan(coins)
        self._run_id = run_id
        self._shapes = Shapes(
            layout.n_blocks,
            layout.labels,
            model.bins,
            self.n_cells,
            self._CHECKED,
            self._plan.ciphertexts if self._plan else 0,
        )
        context: list[bytes | str] = [
            hashlib.sha256(keys).digest(),
            layout.to_json(),
            self._upload.digest,
            model.digest(),
            ",".join(map(str, self._columns)),
            run_id,
            server_nonce,
            ",".join(map(str, coins)),
            *self.groups,
        ]
        self._prg = seeded_prg(seed, "scoring run", *context)
        self._zeros = ZeroSampler(self._keys.public_key, self._prg.child("zeros"))

    @property
    def _histogram_cells(self) -> int:
        return self._layout.labels * (len(self._model.bin_edges) - 1)

    def _coin_plan(self, coins: Sequence[int]) -> CoinPlan | None:
        cells = [count for _, count in self.table_cells]
        if not coins:
            return None
        if len(coins) != len(cells):
            raise ValueError(f"coins: expected a number for each of {len(cells)} tables")
        return CoinPlan(tuple(zip(cells, coins, strict=True)))

    @property
    def table_cells(self) -> list[tuple[str, int]]:
        """(name, cells) of the tables in the order of the openings; the first is the histogram."""
        sizes = zip(self.groups, map(len, self._group_parts), strict=True)
        return [("histogram", self._histogram_cells), *((f"group:{n}", c) for n, c in sizes)]

    @cached_property
    def _relin_keys(self) -> Any:
        return self._keys.seal_relin_keys()
