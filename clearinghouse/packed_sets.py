"""What a packed validation set holds and scores; said alike by hospital, server, developer."""

from clearinghouse.errors import InputError
from secure_eval.class_models import Model, model_parts
from secure_eval.strips import STRIP_ROWS

__all__ = ["check_fits", "check_rows", "fits"]


def check_rows(rows: int, *, is_noised: bool) -> None:
    """Refuse to pack more rows than fit, or rows whose number is released with noise.

    Raises:
        InputError: There are more, or it would say what the noise is to hide.
    """
    if is_noised:
        raise InputError(
            f"--packed says for everybody that there are at most {STRIP_ROWS} rows, which "
            "--epsilon-size is to hide: declare a --size-class, or leave --packed out"
        )
    if rows > STRIP_ROWS:
        raise InputError(
            f"a packed set has at most {STRIP_ROWS} rows, and the table has {rows}: "
            "leave --packed out"
        )


def fits(model: Model) -> bool:
    """Whether a packed set can score a model: no trees, whose bits never meet there."""
    return not any(part.trees for part in model_parts(model))


def check_fits(model: Model) -> None:
    """Refuse a model that a packed set cannot score.

    Raises:
        InputError: It has trees.
    """
    if not fits(model):
        raise InputError(
            "this validation set is packed: it scores linear and additive models only, and this "
            "model has trees. Submit one without, or ask the hospital to seal its set unpacked"
        )
