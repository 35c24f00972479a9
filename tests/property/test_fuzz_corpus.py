"""Every input that fuzzing has kept, and the sound ones it began with, end as they are meant to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz import inputs
from fuzz_targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_stands_what_fuzzing_has_found(name: str) -> None:
    kept = inputs(name)
    for data in (b"", *seeds(name), *kept):
        TARGETS[name](data)
    assert len(kept) >= 20
