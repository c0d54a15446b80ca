"""`onsite`: run ONNX models on a hospital's own rows, through PySyft's folders. Offline."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from clearinghouse.cli.files import public_size_class
from clearinghouse.cli.hospital import TERMS, SealOptions, epsilon_option, terms_of
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import agreed_schema, read_profile
from clearinghouse.client.budget import open_budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.documents import exact_number, shown
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.money import MICRO, format_money
from clearinghouse.onsite import carry
from clearinghouse.onsite.box import Box
from clearinghouse.onsite.developer import Developer, Wish
from clearinghouse.onsite.hospital import Hospital, Review, review_values
from clearinghouse.onsite.papers import check_email
from clearinghouse.onsite.releases import Result as Released
from clearinghouse.score_cards import document, metrics_of
from clearinghouse.tables import Table, read_table

MOCK_ROWS = 128
MEMORY = "onsite"
ROLES = ("hospital", "developer")


@dataclass(frozen=True, slots=True)
class Place:
    """A home with its SyftBox folder."""

    home: Path
    name: str
    role: str
    keystore: Keystore
    box: Box


def open_place(
    home: Path, role: str | None, email: str | None = None, folder: Path | None = None
) -> Place:
    """The home of a party and its SyftBox, remembered when first given.

    Raises:
        InputError: The home is of another role, or knows no SyftBox yet, or another one.
    """
    profile = read_profile(home)
    if profile.role not in ((role,) if role else ROLES):
        raise InputError(
            f"{home} is the home of a {profile.role}, and this is a command of a "
            f"{role or 'hospital or developer'}. Give another --home"
        )
    keystore = Keystore.open(home)
    known = keystore.recall(MEMORY)
    if known is None and (email is None or folder is None):
        raise InputError(f"{home} knows no SyftBox yet. Give --email and --box once")
    known = known or {"email": check_email(str(email), "--email"), "box": str(Path(str(folder)))}
    if email not in (None, known["email"]):
        raise InputError(f"{home} is {known['email']} in its SyftBox. Leave --email out")
    where = Path(known["box"]).resolve() if folder is None else folder.resolve()
    if where.is_relative_to(home.resolve()) or home.resolve().is_relative_to(where):
        raise InputError("--box must lie outside --home: a SyftBox is shared, a home never is")
    box = Box(where, str(known["email"]))
    keystore.remember(MEMORY, {"email": box.email, "box": str(box.folder)})
    return Place(home, profile.name, profile.role, keystore, box)


def _hospital(place: Place, terms: dict[str, Any] | None = None) -> Hospital:
    """The hospital of a home whose table is known.

    Raises:
        RefusedError: Nothing was published yet.
    """
    terms = terms or place.keystore.recall(TERMS)
    if terms is None:
        raise RefusedError(f"{place.home} published nothing. Run: clearinghouse onsite publish")
    schema = agreed_schema(place.home, place.keystore)

    def read() -> Table:
        return read_table(terms["table"], schema)

    limit = int(terms["limit_micro"])
    return Hospital(
        place.name, place.keystore, place.box, read, open_budget(place.keystore, read(), limit)
    )


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What `onsite publish` was told."""

    dataset: str
    developer: str
    epsilon: str
    seal: SealOptions


def publish(place: Place, options: PublishOptions) -> Result:
    """Publish made-up rows of the table's schema, and admit a developer.

    Raises:
        InputError: Table, schema or an option is wrong.
    """
    from clearinghouse.cli.preflight import synthetic  # brings much that no other command needs

    known = place.keystore.recall(TERMS)
    terms, table = terms_of(place.home, place.keystore, options.seal, known)
    size = public_size_class(terms)
    if size is None:
        raise InputError("the table's size is not public yet. Seal it first, or give --size-class")
    place.keystore.remember("schema", table.schema.to_dict())
    place.keystore.remember(TERMS, {**(known or {}), **terms})
    mock = synthetic(replace(table.schema, patient_id=None), MOCK_ROWS, 0)
    mock = replace(mock, schema=table.schema)
    epsilon = epsilon_option(options.epsilon, "--epsilon")
    offer = _hospital(place, terms).publish(options.dataset, mock, options.developer, size, epsilon)
    value = {
        "dataset": offer.dataset,
        "hospital": offer.email,
        "developer": options.developer,
        "key_id": place.keystore.signing_key.key_id,
        "epsilon": format_money(offer.epsilon_micro),
        "bins": offer.bins,
        "box": str(place.box.folder),
    }
    words = (
        f"{offer.dataset}: {MOCK_ROWS} made-up rows are published to {options.developer}; no row "
        f"of the table is in {place.box.folder}\n"
        f"an evaluation costs epsilon {value['epsilon']}; releases are signed by {value['key_id']}"
    )
    return value, words


def submit(place: Place, model: Path, wish: Wish) -> Result:
    """Try a model on the mock rows and submit it."""
    try:
        data = model.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {model}: {error.strerror}") from None
    job, key_id = Developer(place.keystore, place.box).submit(data, wish)
    value = {
        "job": wish.name,
        "hospital": wish.hospital,
        "dataset": wish.dataset,
        "model_sha256": job.model_sha256,
        "manifest_sha256": job.sha256,
        "epsilon": format_money(job.epsilon_micro),
        "hospital_key": key_id,
    }
    words = (
        f"{wish.name}: submitted to {wish.hospital}, sha256 {job.model_sha256}\n"
        f"the answer must be signed by {key_id}: compare this id with the hospital's own"
    )
    return value, words


def cuts_option(text: str | None) -> tuple[Fraction, ...] | None:
    """Inner edges of the bins, comma separated.

    Raises:
        InputError: One is no number.
    """
    if text is None:
        return None
    return tuple(fraction_option(part, "--cuts") for part in text.split(","))


def fraction_option(text: str, option: str) -> Fraction:
    """An exact number given on the command line.

    Raises:
        InputError: It is none.
    """
    value: Fraction | None = exact_number(text)
    if value is None:
        raise InputError(f"{option} must be numbers such as 0.25, not {shown(text)}")
    return value


# ---------------------------------------------------------------- the hospital's desk


def inbox(place: Place) -> Result:
    """Every job that came."""
    jobs = _hospital(place).waiting()
    rows = [["job", "developer", "state"]]
    rows += [[shown(j.name)[1:-1], shown(j.developer)[1:-1], j.status] for j in jobs]
    value = {"jobs": [{"job": j.name, "developer": j.developer, "status": j.status} for j in jobs]}
    return value, columns(rows) if jobs else "no job has come"


def review(place: Place, name: str, developer: str | None, *, approve: bool) -> Result:
    """What a job is; `approve` keeps a copy of it."""
    hospital = _hospital(place)
    found = (hospital.approve if approve else hospital.review)(name, developer)
    return review_values(found), _review_words(found)


def _review_words(found: Review) -> str:
    job, value = found.job, review_values(found)
    made_of = ", ".join(f"{name} x{count}" for name, count in found.found.operators.items())
    cost = (
        "it was paid before: sharing it again costs nothing"
        if found.is_charged
        else f"it costs epsilon {value['epsilon']} of {value['epsilon_left']} that is left"
    )
    lines = [
        f"{value['job']} of {value['developer']}: an ONNX graph of {job.model_bytes} bytes, "
        f"{value['weights']} weights, sha256 {job.model_sha256}",
        f"made of {made_of}",
        "it brings no program: only this graph is run, one row at a time, without files or network",
        f"tried on {value['mock_rows']} made-up rows: it failed on {value['mock_rows_failed']}",
        f"asks for counts by label and subgroup in {len(job.edges) - 1} bins of its score; {cost}",
        f"manifest sha256 {value['manifest_sha256']}",
    ]
    if found.is_approved:
        lines.append(
            f"approved: this copy is what runs. Next: clearinghouse onsite run {job_of(found)}"
        )
    else:
        lines.append(f"nothing is approved. Next: clearinghouse onsite approve {job_of(found)}")
    return "\n".join(lines)


def job_of(found: Review) -> str:
    """The job's name, for a command to copy."""
    return found.submission.name


def reject(place: Place, name: str, developer: str | None, reason: str) -> Result:
    """Refuse a job."""
    _hospital(place).reject(name, reason, developer)
    return {"job": name, "status": "rejected"}, f"{name}: rejected"


def run(place: Place, name: str, developer: str | None) -> Result:
    """Run an approved job; nothing is released or spent."""
    job = _hospital(place).run(name, developer)
    words = (
        f"{name}: run on the patients' rows; the exact counts stay in this home, nothing is spent "
        f"yet\nnext: clearinghouse onsite share {name}"
    )
    return {"job": name, "model_sha256": job.model_sha256, "released": False}, words


def share(place: Place, name: str, developer: str | None) -> Result:
    """Pay, draw noise, sign, and give it to the developer."""
    hospital = _hospital(place)
    before = hospital.budget.spent
    job, path = hospital.share(name, developer)
    spent, limit = hospital.budget.spent, hospital.budget.limit
    value = {
        "job": name,
        "developer": job.developer,
        "paid": format_money(spent - before),
        "spent": format_money(spent),
        "limit": format_money(limit),
        "file": str(path),
    }
    again = " (paid before: the same answer again)" if spent == before else ""
    words = (
        f"{name}: noised counts are signed and in {job.developer}'s outputs{again}\n"
        f"epsilon {value['spent']} of {value['limit']} spent, for life"
    )
    return value, words


# ---------------------------------------------------------------- carrying and collecting


def carry_files(
    place: Place, give: Path | None, take: Path | None, developer: str | None
) -> Result:
    """Copy what the other side may have into a folder, or what it sent out of one."""
    if (give is None) == (take is None):
        raise InputError("give either --out FOLDER or --in FOLDER")
    if place.role == "hospital" and give is not None:
        if developer is None:
            raise InputError("--out needs --for EMAIL: a folder is made for one developer")
        copied = carry.hospital_gives(place.box, give, developer)
    elif place.role == "hospital" and take is not None:
        copied = carry.hospital_takes(place.box, take)
    elif give is not None:
        copied = carry.developer_gives(place.box, give)
    else:
        copied = carry.developer_takes(place.box, Path(str(take)))
    words = "\n".join(copied) if copied else "nothing new to copy"
    return {"copied": copied}, words


def collect(place: Place, hospital: str, name: str) -> Result:
    """Verify a release and show the scores in it."""
    found = Developer(place.keystore, place.box).collect(hospital, name)
    metrics = metrics_of(found.card)
    value = {
        "job": name,
        "hospital": hospital,
        "signed_by": found.key_id,
        "attested": "by the hospital; not provable by replay",
        "epsilon": format_money(found.epsilon_micro),
        "scores": document(found.card, next(iter(metrics)), 0.9),
        "counts": found.counts,
        "groups": [
            {
                "attribute": group.attribute,
                "level": group.level,
                "sensitivity": f"{group.sensitivity[0]:.6f}",
                "specificity": f"{group.specificity[0]:.6f}",
            }
            for group in found.groups
        ],
    }
    return value, _collect_words(name, found)


def _collect_words(name: str, found: Released) -> str:
    rows = [["", "value", "90% interval"]]
    for metric, (point, low, high) in metrics_of(found.card).items():
        rows.append([metric, f"{point:.3f}", f"{low:.3f} to {high:.3f}"])
    lines = [columns(rows)]
    if found.groups:
        rows = [["subgroup", "sensitivity", "", "specificity", ""]]
        for group in found.groups:
            cells = [group.level]
            for point, (low, high) in (group.sensitivity, group.specificity):
                cells += [f"{point:.2f}", f"{low:.2f} to {high:.2f}"]
            rows.append(cells)
        lines.append(columns(rows))
    lines.append(
        f"{name}: signed by {found.key_id}; noised for epsilon {found.epsilon_micro / MICRO:g}. "
        "Attested by the hospital: it cannot be proven by replay, as a blind run can"
    )
    return "\n\n".join(lines)
