"""A SyftBox folder, through PySyft's own classes for datasets, jobs and permissions.

The only place that knows PySyft. It is version 0.10, alpha, and parts of what is used here are not
its public interface, so the versions are exact and checked: another one is refused. PySyft's job
runner is never called, and no job ever gets the state "approved", on which a runner that watches
the folder would start the run.sh that lies there.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clearinghouse.errors import ConflictError, InputError, NotFoundError
from clearinghouse.onsite.papers import NOT_A_PROGRAM

PINS = {
    "syft": "0.10.0",
    "syft-rds": "0.6.1",
    "syft-job": "0.1.40",
    "syft-dataset": "0.1.21",
    "syft-perms": "0.1.15",
    "syft-permissions": "0.1.15",
}
INSTALL = "pip install 'eval-clearinghouse[pysyft]'"
RULES = "syft.pub.yaml"
MAX_FILE_BYTES = 96 << 20
MAX_ENTRIES = 16


def check_versions() -> None:
    """Check that the PySyft that this code was written for is installed.

    Raises:
        InputError: It is not, or is another one.
    """
    for name, wanted in PINS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            raise InputError(
                f"on-site evaluation needs the package {name}. Run: {INSTALL}"
            ) from None
        if found != wanted:
            raise InputError(
                f"on-site evaluation works with {name} {wanted}, not {found}: the folder's format "
                f"may differ. Run: {INSTALL}"
            )


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that lies in an inbox, known by where it lies.

    Attributes:
        developer: Whose inbox.
        name: Of the job.
        status: As PySyft shows it: received, pending, rejected, done.
    """

    developer: str
    name: str
    status: str
    _ref: Any


class Box:
    """One party's SyftBox folder: a folder for each datasite, named by its owner's email."""

    def __init__(self, folder: Path, email: str) -> None:
        """Open the folder, or make it.

        Raises:
            InputError: PySyft is absent or another version.
        """
        check_versions()
        from syft_job import SyftJobConfig
        from syft_job.job_storage import JobStorage

        (folder / email).mkdir(parents=True, exist_ok=True)
        self.folder, self.email = folder.resolve(), email
        config = SyftJobConfig(syftbox_folder=self.folder, current_user_email=email)
        self._config, self._jobs = config, JobStorage(config=config)

    # ---------------------------------------------------------------- datasets

    def publish(self, name: str, mock: Path, private: Path, summary: str) -> None:
        """Make a dataset of this datasite; `allow` says who may see its mock.

        Raises:
            ConflictError: There is one of that name.
        """
        try:
            with _quiet():
                self._datasets().create(
                    name=name, mock_path=mock, private_path=private, summary=summary
                )
        except FileExistsError:
            raise ConflictError(
                f"{self.folder} has a dataset '{name}' already. Give another --dataset"
            ) from None

    def allow(self, name: str, developer: str) -> None:
        """Let a developer read a dataset's mock, send jobs and read what comes of them."""
        from syft_datasets.permissions import set_mock_dataset_permissions
        from syft_job import JobClient

        with _quiet():
            mock = self._datasets().get(name=name).mock_dir
            set_mock_dataset_permissions(self.folder, self.email, mock, [developer])
            JobClient.from_config(self._config).setup_ds_job_folder_as_do(developer)

    def dataset(self, owner: str, name: str) -> Path:
        """The folder of a dataset's mock.

        Raises:
            NotFoundError: There is none of that name here.
        """
        try:
            with _quiet():
                return Path(self._datasets().get(name=name, datasite=owner).mock_dir)
        except FileNotFoundError:
            raise NotFoundError(f"{self.folder} has no dataset '{name}' of {owner}") from None

    def _datasets(self) -> Any:
        from syft_datasets.dataset_manager import SyftDatasetManager

        return SyftDatasetManager(syftbox_folder_path=self.folder, email=self.email)

    # ---------------------------------------------------------------- jobs

    def submit(self, owner: str, name: str, dataset: str, files: Mapping[str, bytes]) -> None:
        """Write a job in PySyft's format into this box's copy of the owner's datasite.

        Raises:
            ConflictError: There is one of that name.
        """
        from syft_job import JobSubmissionMetadata

        ref = self._jobs.new_submission_ref(owner, name)
        folder = Path(self._jobs.submission_dir(ref))
        if folder.exists():
            raise ConflictError(f"a job '{name}' was submitted before. Give another --job")
        (folder / "code").mkdir(parents=True)
        for file, data in files.items():
            (folder / "code" / file).write_bytes(data)
        (folder / "run.sh").write_bytes(NOT_A_PROGRAM)
        metadata = JobSubmissionMetadata(
            name=name,
            type="bash",
            submitted_by=self.email,
            datasite_email=owner,
            submitted_at=datetime.now(UTC),
            files=sorted(files),
            datasets={owner: [dataset]},
        )
        self._jobs.write_submission(ref, metadata)

    def submissions(self, owner: str) -> tuple[Submission, ...]:
        """Every job in the inbox of a datasite; nothing of their files is read."""
        refs = self._jobs.iter_submission_refs(owner)
        return tuple(Submission(r.ds_email, r.job_name, self._status(r), r) for r in refs)

    def _status(self, ref: Any) -> str:
        from syft_job.job_storage import JobStateNotFoundError

        try:
            return str(self._jobs.read_state(ref).status.value)
        except JobStateNotFoundError:
            return "received"

    def read(self, job: Submission) -> dict[str, bytes]:
        """The bytes of every file of a job, each read once; links are not followed.

        Raises:
            InputError: Something in it is no plain file, too many or too large.
        """
        folder = Path(self._jobs.submission_dir(job._ref))
        if folder.resolve() != folder:
            raise InputError(f"job '{job.name}': its folder is a link. It is refused")
        found: dict[str, bytes] = {}
        for path in sorted(folder.rglob("*")):
            place = path.relative_to(folder).as_posix()
            if path.is_dir() and not path.is_symlink():
                continue
            if len(found) >= MAX_ENTRIES or path.is_symlink() or not path.is_file():
                raise InputError(f"job '{job.name}': {place!r} is no plain file, or one too many")
            with path.open("rb") as stream:
                found[place] = stream.read(MAX_FILE_BYTES + 1)
            if len(found[place]) > MAX_FILE_BYTES:
                raise InputError(f"job '{job.name}': {place!r} is too large")
        return found

    def record(self, job: Submission, status: str, reason: str) -> None:
        """Say to the developer where a job stands: pending, rejected or done, never approved."""
        from syft_job import JobState, JobStatus

        now = datetime.now(UTC)
        state = JobState(status=JobStatus(status), received_at=now, review_reason=reason)
        if status == "rejected":
            state.rejected_by, state.rejected_at = self.email, now
        if status == "done":
            state.approved_by, state.approved_at = self.email, now
            state.completed_at, state.return_code = now, 0
        self._jobs.write_state(job._ref, state)

    def deposit(self, job: Submission, file: str, data: bytes) -> Path:
        """Put one file into a job's outputs, for its developer alone."""
        from syft_perms import SyftPermContext

        outputs = self._outputs(job)
        outputs.mkdir(parents=True, exist_ok=True)
        temporary = outputs.with_name(".outputs.new")
        temporary.write_bytes(data)
        temporary.replace(outputs / file)
        datasite = self.folder / self.email
        with _quiet():
            shared = SyftPermContext(datasite=datasite).open(f"{outputs.relative_to(datasite)}/")
            shared.grant_read_access(job.developer)
        return outputs / file

    def outputs(self, owner: str, name: str) -> Path:
        """Where the outputs of this party's job lie, once they came.

        Raises:
            NotFoundError: This box holds no such job.
        """
        for job in self.submissions(owner):
            if (job.developer, job.name) == (self.email, name):
                return self._outputs(job)
        raise NotFoundError(f"{self.folder} holds no job '{name}' for {owner}")

    def _outputs(self, job: Submission) -> Path:
        return Path(self._jobs.review_dir(job._ref)) / "outputs"

    # ---------------------------------------------------------------- permissions

    def readable(self, owner: str, user: str, places: Sequence[str]) -> list[str]:
        """Those places of a datasite that its owner lets a user read."""
        return self._permitted(owner, user, places, "READ")

    def writable(self, owner: str, user: str, places: Sequence[str]) -> list[str]:
        """Those places of a datasite that its owner lets a user write."""
        return self._permitted(owner, user, places, "WRITE")

    def _permitted(self, owner: str, user: str, places: Sequence[str], level: str) -> list[str]:
        from syft_permissions import AccessLevel, ACLRequest, ACLService, User

        rules = ACLService(owner=owner)
        rules.load_permissions_from_filesystem(self.folder / owner)
        wanted, person = AccessLevel[level], User(id=user)
        return [
            place
            for place in places
            if rules.can_access(ACLRequest(path=place, level=wanted, user=person))
        ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PySyft prints as it works; a command's output is its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
