"""Hands the sample report to the tests of this folder without touching the import path."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def sample() -> Callable[..., dict[str, Any]]:
    spec = importlib.util.spec_from_file_location(
        "report_sample", Path(__file__).with_name("sample_report.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make: Callable[..., dict[str, Any]] = module.sample
    return make
