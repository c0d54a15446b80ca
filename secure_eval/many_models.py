"""Many models without trees on one sealed set: one residue matrix product instead of many loops.

Protocol section 1 (docs/protocol.md).

A model with scalar weights is an integer matrix row applied to the residues of the uploaded
columns. All models together are one product per prime and polynomial (`kernel.combined`), bit for
bit what SEAL's own scalar products give, so messages and replays are the same either way.
Columns are streamed, so that memory holds a chunk of them and one sum per model.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_eval.evaluator import ScoringRun
from secure_eval.integer_model import IntegerModel
from secure_eval.kernel import centred, combined
from secure_eval.layout import Upload
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

__all__ = ["doubled_sums", "score_many"]

Integers = NDArray[np.int64]

_N = PARAMETERS.degree
_DATA = PARAMETERS.data_primes
#: columns in memory at a time: 34 MB
_COLUMNS = 64
#: models at a time: 52 MB of sums
_MODELS = 100


def _matrix(models: Sequence[IntegerModel], maps: Sequence[Sequence[int]]) -> Integers:
    """Return the doubled weights (models, used columns), and which uploaded columns are used."""
    width = 1 + max((max(columns, default=0) for columns in maps), default=0)
    matrix = np.zeros((len(models), width), np.int64)
    for row, (model, columns) in enumerate(zip(models, maps, strict=True)):
        if model.trees:
            raise ValueError("many models: expected models without trees")
        matrix[row, list(columns)] = 2 * model.weights
    return centred(matrix, PARAMETERS.plain_modulus)


def doubled_sums(
    models: Sequence[IntegerModel], maps: Sequence[Sequence[int]], upload: Upload, block: int
) -> Integers:
    """Return twice the weighted columns of each model, residues (models, 2, 4, N).

    Args:
        models: linear or additive.
        maps: for each model the uploaded index of each of its columns.
        upload: the sealed set.
        block: which block.

    Raises:
        ValueError: a model with trees, or a malformed column.
    """
    matrix = _matrix(models, maps)
    used = np.flatnonzero(matrix.any(axis=0))
    result = np.zeros((len(models), 2, len(_DATA), _N), np.int64)
    for start in range(0, len(used), _COLUMNS):
        some = used[start : start + _COLUMNS]
        table = np.empty((2, len(_DATA), len(some), _N), np.uint64)
        for place, index in enumerate(some.tolist()):
            table[:, :, place] = seal().residues(upload.ciphertext(block, index))
        for polynomial in range(2):
            for level, prime in enumerate(_DATA):
                part = combined(matrix[:, some], table[polynomial, level], prime)
                if start:
                    part += result[:, polynomial, level]
                    part -= prime * (part >= prime)
                result[:, polynomial, level] = part
    return result


def score_many(runs: Sequence[ScoringRun]) -> Iterator[bytes]:
    """Yield the score message of each run, as `ScoringRun.score` would return it.

    Args:
        runs: runs on the same sealed set; those of models with trees, and all on a packed set,
            are computed one by one.

    Raises:
        ValueError: runs on different sets, or anything malformed in the upload.
    """
    if len({run.upload.digest for run in runs}) > 1:
        raise ValueError("score_many: expected runs on one sealed set")
    for start in range(0, len(runs), _MODELS):
        some = runs[start : start + _MODELS]
        scalar = [run for run in some if not run.model.trees and run.model.weights.any()]
        if some[0].upload.layout.strips:
            scalar = []
        for block in range(some[0].upload.layout.n_blocks if scalar else 0):
            models, maps = [run.model for run in scalar], [run.columns for run in scalar]
            sums = doubled_sums(models, maps, scalar[0].upload, block)
            for run, residues in zip(scalar, sums, strict=True):
                run.prepare(block, residues)
        for run in some:
            yield run.score()
