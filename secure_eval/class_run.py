"""A run of one model for each class: the classes' own runs in step, as one run.

Each class is a checked run of its own (own masks, shares and noise key) on the same sealed set with
two labels, the class and the rest. The rounds are those of docs/protocol.md, each message holding
one message for each class, and every class must pass a test before any class gets an answer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval.checked import CheckedScoringRun
from secure_eval.class_models import ClassModels
from secure_eval.evaluator import Opened
from secure_eval.layout import Layout, ReadParts, Shapes
from secure_eval.one_class import (
    OneClassUpload,
    class_run_id,
    joined_parts,
    one_class_layout,
    split_parts,
)
from secure_eval.run_inputs import BlockStep, Elsewhere

__all__ = ["ClassesScoringRun", "OneClassRun"]


class OneClassRun(CheckedScoringRun):
    """The checked run of one class against the rest."""

    def __init__(
        self, *arguments: Any, of_class: int, coins: Sequence[int] = (), **named: Any
    ) -> None:
        """Prepare a run; everything is as for `ScoringRun`, and `of_class` is the label's code."""
        super().__init__(*arguments, coins=coins, **named)
        layout = one_class_layout(self._layout)
        self._upload = OneClassUpload(self.upload, of_class)  # type: ignore[assignment]
        self._layout = layout
        self._group_parts = [layout.group_parts(name) for name in self.groups]
        self.n_cells = self._histogram_cells + sum(map(len, self._group_parts))
        self._plan = self._coin_plan(coins)
        self._shapes = Shapes(
            layout.n_blocks,
            layout.labels,
            self.model.bins,
            self.n_cells,
            self._CHECKED,
            self._plan.ciphertexts if self._plan else 0,
        )


class ClassesScoringRun:
    """All classes of a model on one sealed set; the same rounds as `CheckedScoringRun`."""

    def __init__(
        self,
        keys: bytes,
        layout: Layout,
        upload: Sequence[bytes],
        model: ClassModels,
        column_maps: Sequence[Sequence[int]],
        seed: bytes,
        run_id: str,
        server_nonce: bytes,
        *,
        groups: Sequence[str] | None = None,
        coins: Sequence[int] = (),
    ) -> None:
        """Check all shapes and prepare every class's run.

        Args:
            keys: the public keys' message.
            layout: shape of the sealed set; as many labels as classes.
            upload: one blob per block.
            model: what to evaluate.
            column_maps: for each class, for each column of its model, its index in the upload.
            seed: 32 secret bytes from the operating system.
            run_id: unique name of the run; each class's run is named after it.
            server_nonce: goes into the noise.
            groups: attributes to open, by default all of the layout.
            coins: committed coins per cell of each table, class by class; none under the
                geometric law.

        Raises:
            ValueError: anything malformed, or a label of another number of classes.
        """
        if not layout.labels == len(model.models) == len(column_maps):
            raise ValueError(
                f"classes: the model has {len(model.models)}, the sealed set {layout.labels} labels"
            )
        each, rest = divmod(len(coins), len(model.models))
        if rest:
            raise ValueError(f"coins: expected as many for each of {len(model.models)} classes")
        self.model = model
        self._runs = [
            OneClassRun(
                keys,
                layout,
                upload,
                part,
                columns,
                seed,
                class_run_id(run_id, index),
                server_nonce,
                of_class=index,
                groups=groups,
                coins=coins[index * each : (index + 1) * each],
            )
            for index, (part, columns) in enumerate(zip(model.models, column_maps, strict=True))
        ]

    @property
    def table_cells(self) -> list[tuple[str, int]]:
        """(name, cells) of the tables, class by class, in the order of the openings."""
        return [
            (class_table(name, index), cells)
            for index, run in enumerate(self._runs)
            for name, cells in run.table_cells
        ]

    def share_parts(self, kept: ReadParts) -> None:
        """Keep the set's ciphertexts where the runs of all classes, and others, find them."""
        for run in self._runs:
            run.share_parts(kept)

    @property
    def units(self) -> int:
        """Pieces of work of a step that can be done at the same time: blocks of all classes."""
        return sum(run.units for run in self._runs)

    def compute_elsewhere(self, elsewhere: Elsewhere | None) -> None:
        """Have some units computed by other processes, or none."""
        for index, run in enumerate(self._runs):
            start = index * run.units
            run.compute_elsewhere(elsewhere and _shifted(elsewhere, start))

    def take_messages(
        self, digits: bytes = b"", characters: bytes = b"", nonces: Sequence[bytes] = ()
    ) -> None:
        """Take what was received before a step; see `ScoringRun.take_messages`."""
        none = [b""] * len(self._runs)
        first = split_parts(digits, len(none)) if digits else none
        second = split_parts(characters, len(none)) if characters else none
        for run, mine, others in zip(self._runs, first, second, strict=True):
            run.take_messages(mine, others, nonces)

    def block_arrays(self, step: BlockStep, unit: int) -> list[NDArray[Any]]:
        """Return what a step needs of one block of one class; see `ScoringRun.block_arrays`."""
        of_class, block = divmod(unit, self._runs[0].units)
        return self._runs[of_class].block_arrays(step, block)

    def _split(self, message: bytes) -> list[tuple[OneClassRun, bytes]]:
        return list(zip(self._runs, split_parts(message, len(self._runs)), strict=True))

    def score(self) -> bytes:
        """Return message 1 of every class."""
        return joined_parts([run.score() for run in self._runs])

    def early_checks(self, digits: bytes) -> bytes:
        """Return the early checks of every class."""
        return joined_parts([run.early_checks(part) for run, part in self._split(digits)])

    def accept_early(self, replies: bytes) -> None:
        """Accept the replies of every class, or raise ValueError: the whole run is burnt."""
        for run, part in self._split(replies):
            run.accept_early(part)

    def shares(self, digits: bytes) -> bytes:
        """Return message 3 of every class, once every class's digits were accepted."""
        return joined_parts([run.shares(part) for run, part in self._split(digits)])

    def final_checks(self, characters: bytes) -> bytes:
        """Return the final checks of every class."""
        return joined_parts([run.final_checks(part) for run, part in self._split(characters)])

    def accept_final(self, replies: bytes) -> None:
        """Accept the replies of every class, or raise ValueError: the whole run is burnt."""
        for run, part in self._split(replies):
            run.accept_final(part)

    def openings(self, characters: bytes, nonces: Sequence[bytes] | None = None) -> bytes:
        """Return message 5 of every class, once every class's characters were accepted."""
        return joined_parts([run.openings(part, nonces) for run, part in self._split(characters)])

    def release(self, replies: bytes) -> Opened:
        """Return the noised counts: row 2 k holds the rest, row 2 k + 1 class k.

        Groups are named "k:attribute", (levels, 2) each.

        Guarantee:
            Private at the sum of the epsilons of all classes' tables, or an error.
        Assumes:
            As `ScoringRun.release`.
        Proof:
            Each class is a release of the same patients, so their epsilons add up.
        """
        opened = [run.release(part) for run, part in self._split(replies)]
        groups = {
            f"{index}:{name}": counts
            for index, part in enumerate(opened)
            for name, counts in part.groups.items()
        }
        return Opened(np.vstack([part.counts for part in opened]), groups)


def _shifted(elsewhere: Elsewhere, start: int) -> Elsewhere:
    """Return what computes the units of a class whose first one has this number."""
    return lambda step, block: elsewhere(step, start + block)


def class_table(name: str, of_class: int) -> str:
    """Return a table's name within a release of all classes: "histogram:k", "group:k:attribute"."""
    kind, _, attribute = name.partition(":")
    return f"{kind}:{of_class}:{attribute}" if attribute else f"{kind}:{of_class}"
