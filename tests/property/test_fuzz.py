"""The fuzz targets for a moment each; `fuzz_readers.py` runs them for longer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.parametrize("target", ["fuzz_frames", "fuzz_archives"])
def test_nothing_but_the_promised_errors_comes_of_damaged_input(target: str):
    spec = importlib.util.spec_from_file_location("fuzz_readers", Path(__file__).with_name("fuzz_readers.py"))
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    assert fuzz.run(getattr(fuzz, target), 2.0) > 50
