"""Opaque ids with a prefix that names the noun: `src_...`, `req_...`."""

import re
import secrets
from typing import Literal

Noun = Literal[
    "org",
    "key",
    "apk",
    "sch",
    "src",
    "val",
    "req",
    "ord",
    "dlv",
    "mod",
    "run",
    "rel",
    "rcp",
    "grt",
    "tsk",
    "job",
    "wrk",
    "dsp",
    "upl",
]

_PATTERN = re.compile(r"[a-z]{3}_[0-9a-z]{20}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(noun: Noun) -> str:
    """A fresh random id (over 100 bits) for an object of this noun."""
    return f"{noun}_" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


def is_id(text: str, noun: Noun) -> bool:
    """Whether `text` has the form of an id of this noun."""
    return bool(_PATTERN.fullmatch(text)) and text.startswith(noun + "_")
