"""Where entries are in the log: other tables name them by id, everybody else by index."""

from collections.abc import Iterable

from sqlmodel import Session, col, select

from clearinghouse.store.tables import EntryRow


def gives_places_at_once(session: Session) -> bool:
    """Whether an entry gets its index in the transaction that writes it; then it is its id."""
    return session.get_bind().dialect.name == "sqlite"


def place(session: Session, entry_id: int) -> int | None:
    """Return the index of an entry; None while it waits for the sequencer."""
    return places_of(session, [entry_id])[entry_id]


def places_of(session: Session, entry_ids: Iterable[int | None]) -> dict[int | None, int | None]:
    """Return the index of each of these entries; None for one that waits, and for None."""
    wanted = {number for number in entry_ids if number is not None}
    found: dict[int | None, int | None] = {None: None, **dict.fromkeys(wanted)}
    if gives_places_at_once(session):
        return {**found, **{number: number for number in wanted}}
    if wanted:
        query = select(EntryRow.id, EntryRow.position).where(col(EntryRow.id).in_(wanted))
        found.update(session.exec(query).all())
    return found


def places(session: Session) -> dict[int, int]:
    """Return the index of every entry by id; those that wait follow in the order of ids."""
    found = dict[int, int]()
    waiting = []
    for number, position in session.exec(select(EntryRow.id, EntryRow.position)):
        if position is None:
            waiting.append(number)
        else:
            found[number] = position
    size = 1 + max(found.values(), default=-1)
    return found | {number: at for at, number in enumerate(sorted(waiting), size)}
