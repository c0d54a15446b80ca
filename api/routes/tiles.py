"""The log as tiles, for mirrors and auditors that read any C2SP log (c2sp.org/tlog-tiles).

Below /v1/log/tiles: checkpoint, tile/<L>/<N>[.p/<W>] and tile/entries/<N>[.p/<W>]. Hashes are for
everybody; entries only for those who may read them anyway.
"""

from fastapi import APIRouter
from starlette.responses import Response

from api.calls import CallOf, DeskOf
from clearinghouse.errors import NotFoundError
from clearinghouse.log.tiles import TILE, TilePath, bundle, parse_tile_path

router = APIRouter(prefix="/v1", tags=["audit"])

BYTES = "application/octet-stream"
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@router.get("/log/tiles/checkpoint", response_class=Response)
def get_head(desk: DeskOf) -> Response:
    """The signed head of the log, as a plain note."""
    return Response(desk.head(), media_type="text/plain; charset=utf-8")


@router.get("/log/tiles/tile/entries/{path:path}", response_class=Response)
def get_bundle(call: CallOf, path: str) -> Response:
    """Up to 256 entries, each behind its length."""
    tile = parse_tile_path(path)
    with call.desk.store.read() as tx:
        _check(tile, 0, tx.log.size())
        found = tx.log.entries(tile.index * TILE, tile.width)
    return Response(bundle(found), media_type=BYTES, headers=_FOREVER)


@router.get("/log/tiles/tile/{level}/{path:path}", response_class=Response)
def get_tile(desk: DeskOf, level: int, path: str) -> Response:
    """Up to 256 hashes of one level."""
    tile = parse_tile_path(path)
    with desk.store.read() as tx:
        _check(tile, level, tx.log.size())
        hashes = tx.log.hashes(8 * level, tile.index * TILE, tile.width)
    return Response(b"".join(hashes), media_type=BYTES, headers=_FOREVER)


def _check(tile: TilePath, level: int, size: int) -> None:
    """Refuse what lies beyond the log: a level has one hash for each 256 of the level below."""
    if not 0 <= level <= 7 or tile.index * TILE + tile.width > size >> (8 * level):
        raise NotFoundError("the log has no such tile yet")
