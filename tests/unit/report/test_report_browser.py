"""The page in a real browser: it is drawn without scripts and without a network."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearinghouse.messages.disputes import LineView, OrgStatement
from clearinghouse.report.html import render_html
from clearinghouse.report.statement import statement_html

REQUIRES = ("chromium",)

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-javascript",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def shot(page: Path, width: int, height: int, *more: str) -> np.ndarray:
    """A screenshot as an array (height, width, 3)."""
    picture = page.with_suffix(f".{width}.png")
    profile = page.parent / f"profile-{width}-{len(more)}"
    subprocess.run(
        [
            "chromium",
            *QUIET,
            *more,
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_is_drawn_to_its_end(
    tmp_path: Path, sample: Callable[..., dict[str, Any]], width: int
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_html(sample()), encoding="utf-8")
    pixels = shot(page, width, 9000)
    background = pixels[5, 5]
    inked = (np.abs(pixels.astype(int) - background).sum(axis=2) > 60).any(axis=1)
    rows = np.flatnonzero(inked)
    assert rows[0] < 200  # it begins at the top
    assert rows[-1] > 3000  # and goes on through all sections
    assert np.diff(rows).max() < 400  # no section is a blank
    colours = {tuple(colour) for colour in pixels[::7, ::7].reshape(-1, 3).tolist()}
    assert len(colours) > 12  # charts are there, not text alone


def test_dark_is_dark(tmp_path: Path, sample: Callable[..., dict[str, Any]]) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_html(sample()), encoding="utf-8")
    light = shot(page, 1200, 1200)
    dark = shot(page, 1200, 1201, "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    assert light[5, 5].mean() > 200
    assert dark[5, 5].mean() < 60


def test_a_statement_is_drawn_and_fits_the_width(tmp_path: Path) -> None:
    name, request = "org_" + "1" * 20, "req_" + "0" * 20
    lines = [
        LineView(
            at_s=1_800_000_000,
            request_id=request,
            transfer=f"{request}:order:ord_{number:020d}",
            account=f"org:{name}",
            amount_micro=1_250_000,
            balance_micro=1_250_000 * (number + 1),
        )
        for number in range(12)
    ]
    found = OrgStatement(
        org_id=name,
        name="Ward 7",
        currency="EUR",
        lines=lines,
        balances={f"org:{name}": 15_000_000},
        frozen={},
    )
    page = tmp_path / "statement.html"
    page.write_text(statement_html(found), encoding="utf-8")
    for width in (1000, 500):
        pixels = shot(page, width, 1600)
        inked = (np.abs(pixels.astype(int) - 255).sum(axis=2) > 60).any(axis=0)
        assert inked[width // 8 : width * 7 // 8].mean() > 0.7  # text across the page
        assert not inked[-3:].any()  # nothing runs out of it
