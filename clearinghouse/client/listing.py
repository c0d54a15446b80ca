"""Lists that the server gives page by page, read whole."""

from clearinghouse.client.transport import Transport
from clearinghouse.messages.intake import SourceList, SourceView

PAGE = 200


def list_sources(transport: Transport, schema_id: str | None = None) -> list[SourceView]:
    """All sources, or those of one schema, in order of id.

    Raises:
        ClearinghouseError: As `Transport.get`.
    """
    of_schema = "" if schema_id is None else f"&schema_id={schema_id}"
    found: list[SourceView] = []
    after = ""
    while True:
        query = f"limit={PAGE}{of_schema}{after}"
        page = transport.get("/sources", SourceList, query=query)
        found += page.sources
        if page.next_cursor is None:
            return found
        after = f"&cursor={page.next_cursor}"
