"""A real S3 server for tests: OpenStack Swift of Debian's package, on a port of loopback."""

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAM = Path(__file__).with_name("swift_program.py")
PYTHON = "/usr/bin/python3"
"""Debian's own, which has the package."""


class S3Server:
    """One server with one bucket; every user takes a prefix of its own."""

    def __init__(self) -> None:
        """Start it and wait until the bucket is there."""
        self.folder = Path(tempfile.mkdtemp(prefix="clearinghouse-s3-"))
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, str(PROGRAM), str(self.folder / "swift"), "blobs"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env={"PATH": "/usr/bin:/bin"},
            )
        line = (self.process.stdout.readline() if self.process.stdout else "").strip()
        if not line.startswith("listening on "):
            self.close()
            raise RuntimeError("the S3 server did not start: is python3-swift installed?")
        self.environment = {
            "AWS_ENDPOINT": line.removeprefix("listening on "),
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test:tester",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ALLOW_HTTP": "true",
        }

    def fresh(self) -> str:
        """The URL of an empty prefix."""
        return f"s3://blobs/{secrets.token_hex(8)}"

    def close(self) -> None:
        """Stop it and remove everything."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
