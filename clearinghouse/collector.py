"""How often the interpreter looks for unreachable cycles of objects in a process of ours."""

import gc

_NEW_OBJECTS = 20_000
"""The interpreter's own choice, 700, has it look several times in every call of the API."""


def collect_rarely() -> None:
    """Leave what is loaded by now alone for good, and look at the rest less often.

    The modules of a server are some hundred thousand objects that stay until its end; looking at
    them again and again was a twelfth of the processor time of a market.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
