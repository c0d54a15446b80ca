"""How long lists are read: page after page, each beginning after the last one's `next_cursor`."""

from typing import Annotated

from fastapi import Query

PAGE = 50
MOST = 200

Limit = Annotated[int, Query(ge=1, le=MOST)]
"""How many a page may have."""
