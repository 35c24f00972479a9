"""The suites for plugin authors notice faults: each of our providers is broken in several ways, and its suite says so."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

MUTANTS = Path(__file__).with_name("mutants.py")
FAMILIES = ("Archiver", "Store", "Installer", "Serializer", "Cache", "Engine", "Observer")


def mutants_of(family: str) -> list[str]:
    names = [node.name for node in ast.parse(MUTANTS.read_text()).body if isinstance(node, ast.ClassDef)]
    return [name for name in names if name.startswith(family)]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_suite_passes_the_sound_provider_and_catches_every_mutant(family: str) -> None:
    command = [sys.executable, "-m", "pytest", str(MUTANTS), "-k", f"Test{family}", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    failed = defaultdict(set)
    for name, test in re.findall(r"(?m)^(?:FAILED|ERROR) \S+?::Test(\w+)::(\S+)", done.stdout):
        failed[name].add(test)
    assert not failed.pop(f"{family}Sound", None), done.stdout
    assert sorted(failed) == sorted(mutants_of(family)), done.stdout


def test_there_are_at_least_twenty_mutants_and_some_of_each_family() -> None:
    counts = {family: len(mutants_of(family)) for family in FAMILIES}
    assert min(counts.values()) >= 3
    assert sum(counts.values()) >= 20
