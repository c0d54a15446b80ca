"""Files between two SyftBox folders without a network: a folder that somebody carries.

It is laid out like a SyftBox. Into it goes only what the other side may read, out of it comes only
what the other side may write, by PySyft's own permission files; never anything private, never a
link. Whatever else lies in the folder is left there.
"""

from collections.abc import Iterable
from pathlib import Path

from clearinghouse.errors import InputError
from clearinghouse.onsite.box import MAX_FILE_BYTES, Box
from clearinghouse.onsite.papers import check_email

INBOX, REVIEW = "app_data/job/inbox", "app_data/job/review"
MOCKS = "public/syft_datasets"
MOST_FILES = 10_000


def hospital_gives(box: Box, folder: Path, developer: str) -> list[str]:
    """Copy what a developer may read of this datasite into the folder."""
    check_email(developer, "--for")
    places = _places(box.folder / box.email, (MOCKS, f"{REVIEW}/{developer}"))
    return _copy(
        box.folder / box.email,
        folder / box.email,
        box.readable(box.email, developer, places),
    )


def hospital_takes(box: Box, folder: Path) -> list[str]:
    """Copy jobs out of the folder into the inboxes of developers that this hospital admitted."""
    source = folder.resolve() / box.email
    names = [path.name for path in sorted((source / INBOX).glob("*")) if path.is_dir()]
    copied = []
    for developer in names:
        places = _places(source, (f"{INBOX}/{developer}",))
        allowed = box.writable(box.email, developer, places)
        copied += _copy(source, box.folder / box.email, allowed)
    return copied


def developer_gives(box: Box, folder: Path) -> list[str]:
    """Copy this developer's jobs, for whichever hospital, into the folder."""
    copied = []
    for owner in _datasites(box.folder):
        places = _places(box.folder / owner, (f"{INBOX}/{box.email}",))
        copied += _copy(box.folder / owner, folder / owner, places)
    return copied


def developer_takes(box: Box, folder: Path) -> list[str]:
    """Copy mocks and what came of this developer's jobs out of the folder."""
    copied, folder = [], folder.resolve()
    for owner in _datasites(folder):
        places = _places(folder / owner, (MOCKS, f"{REVIEW}/{box.email}"))
        copied += _copy(folder / owner, box.folder / owner, places)
    return copied


def _datasites(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("*@*")) if path.is_dir()]


def _places(datasite: Path, below: Iterable[str]) -> list[str]:
    """Plain files below some folders of a datasite, as places in it; no links, no rules."""
    found = [
        path.relative_to(datasite).as_posix()
        for part in below
        for path in sorted((datasite / part).rglob("*"))
        if path.is_file() and not path.is_symlink() and path.resolve() == path.absolute()
    ]
    if len(found) > MOST_FILES:
        raise InputError(f"{datasite}: more than {MOST_FILES} files. Remove old jobs")
    return [place for place in found if not place.endswith("syft.pub.yaml")]


def _copy(source: Path, target: Path, places: Iterable[str]) -> list[str]:
    copied = []
    for place in places:
        with (source / place).open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"{source / place}: larger than {MAX_FILE_BYTES} bytes")
        path = target / place
        if path.is_file() and path.read_bytes() == data:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        copied.append(f"{source.name}/{place}")
    return copied
