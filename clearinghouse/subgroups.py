"""Which subgroup tables a validation set's runs release: fewer for small sets, by public numbers.

Every table of a run takes a part of its epsilon. A table whose cells are more than its part of
epsilon times the size class would hold noise and little else, and would take what the others need:
so it does not exist. The rule is that of the strata levels (`cells.finest_level`), at an epsilon of
1 a run, and reads the schema and the public size class (or DP n) only.
"""

from clearinghouse.schema import Schema
from clearinghouse.score_cards import task_of
from dp.laws import parts

__all__ = ["RUN_MICRO", "left_out_words", "published_subgroups"]

RUN_MICRO = 1_000_000
"""Epsilon of the run that the rule reckons with; a set's tables are fixed when it is sealed."""


def published_subgroups(schema: Schema, size_class: int) -> tuple[str, ...]:
    """The subgroup attributes whose tables exist, in the schema's order.

    The largest table goes first until all that are left have at most epsilon x size class cells,
    where epsilon is what each then gets; of equal ones the later goes.
    """
    classes = schema.label.n_classes if task_of(schema.label) == "classes" else 1
    labels = 2 if classes > 1 else schema.label.n_classes
    kept = list(schema.subgroups)
    while kept:
        _, part = parts(RUN_MICRO, len(kept), classes)
        sizes = [len(schema.stratum_names(name)) * labels for name in kept]
        largest = max(range(len(kept)), key=lambda place: (sizes[place], place))
        if sizes[largest] * RUN_MICRO <= part * size_class:
            break
        del kept[largest]
    return tuple(kept)


def left_out_words(schema: Schema, size_class: int) -> str:
    """Which tables a set of this size does not release, and why; empty if it releases all."""
    kept = published_subgroups(schema, size_class)
    lost = [name for name in schema.subgroups if name not in kept]
    if not lost:
        return ""
    return (
        f"no scores by {', '.join(lost)}: at about {size_class} {schema.unit}s a run's noise would "
        "drown them"
    )
