"""The page in a real browser: it is drawn without scripts and without a network."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearinghouse.report.html import render_html

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
