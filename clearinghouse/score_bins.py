"""How finely a set may be scored: public, from its size class alone."""


def published_bins(size_class: int) -> int:
    """How many bins a release may have, so that noise does not drown small sets."""
    return 8 if size_class < 256 else 16 if size_class < 2048 else 32
