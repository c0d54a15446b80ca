"""Where an error came from, in words that hold no value.

The message of an error that is not ours may quote what it choked on: a cell of a table, a
parameter of a query, a line of a key file. So a log says its type and the lines it passed, and its
message never.
"""

import traceback
from pathlib import Path

MOST_FRAMES = 12
_OURS = Path(__file__).resolve().parents[1]


def frames(error: BaseException, most: int = MOST_FRAMES) -> list[str]:
    """`file:line function` of the innermost frames, the innermost first."""
    found = traceback.extract_tb(error.__traceback__)[-most:]
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(found)]


def is_said(error: BaseException) -> bool:
    """Whether a line of ours raised an error with words of ours, rather than a library on a value.

    `int(text)` quotes the text it cannot read, from the same file as our own messages; the line
    that failed tells the two apart.
    """
    found = traceback.extract_tb(error.__traceback__)[-1:]
    return any(
        (frame.line or "").startswith("raise ") and Path(frame.filename).is_relative_to(_OURS)
        for frame in found
    )


def place(error: BaseException, most: int = 3) -> str:
    """Type and place of an error in one line."""
    return f"{type(error).__name__} in {' < '.join(frames(error, most))}"
