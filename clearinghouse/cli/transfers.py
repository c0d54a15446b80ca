"""One line on a terminal that says how far a large upload or download is."""

import sys
from types import TracebackType
from typing import Self, TextIO

_QUIET = frozenset({"--json", "--no-progress"})


class Transfers:
    """Shows one blob after the other; as a context manager it ends a line that broke off.

    Args:
        stream: A terminal; None shows nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._shown = stream, ""

    def __enter__(self) -> Self:
        """Nothing is written before something large is on its way."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What is written next begins a line of its own."""
        if self._stream is not None and self._shown:
            self._stream.write("\n")
            self._shown = ""

    def __call__(self, way: str, arrived: int, size: int) -> None:
        """Say how many bytes of a blob were sent or received."""
        words = f"{way} {arrived / 1e6:.1f} of {size / 1e6:.1f} MB, {100 * arrived // size} %"
        if self._stream is None or words == self._shown:
            return
        self._stream.write("\r" + words.ljust(len(self._shown)))
        self._shown = words
        if arrived == size:
            self._stream.write("\n")
            self._shown = ""
        self._stream.flush()


def transfers() -> Transfers:
    """For the command that runs: on its terminal, unless it is to be quiet or speaks JSON."""
    is_quiet = not _QUIET.isdisjoint(sys.argv) or not sys.stderr.isatty()
    return Transfers(None if is_quiet else sys.stderr)
