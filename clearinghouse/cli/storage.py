"""`store gc`: garbage among the blobs."""

from dataclasses import asdict
from pathlib import Path

from clearinghouse.cli.operator import open_data
from clearinghouse.cli.options import Result


def collect_garbage(data: Path, *, dry_run: bool) -> Result:
    """Remove blobs that nothing names, or say which would go.

    Raises:
        InputError: There is no server's folder.
    """
    from clearinghouse.rounds import garbage

    with open_data(data) as desk:
        grace = desk.settings.garbage_grace_hours
        if dry_run:
            found = garbage.find(desk)
            strays = [blob.digest for blob in found.strays]
            value = {
                "dry_run": True,
                "unnamed": sorted(found.unnamed),
                "strays": strays,
                "missing": list(found.missing),
                "bytes": found.bytes,
            }
            counts = (len(found.unnamed), len(strays), len(found.missing), found.bytes)
        else:
            done = garbage.collect(desk)
            value = {"dry_run": False, **asdict(done)}
            counts = (done.unnamed, done.strays, done.missing, done.bytes)
    return value, _words(*counts, grace=grace, verb="would go" if dry_run else "are gone")


def _words(unnamed: int, strays: int, missing: int, size: int, *, grace: int, verb: str) -> str:
    lines = [
        f"{unnamed} blobs that nothing has named for {grace} h and {strays} that no row knows "
        f"{verb}: {size / 1e6:.1f} MB"
    ]
    if missing:
        lines.append(
            f"{missing} blobs of the index are missing: restore them from the backup (docs/"
            "operate.md, Restore); store gc --dry-run --json names them"
        )
    return "\n".join(lines)
