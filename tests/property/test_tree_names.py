"""Whatever names an archive holds: nothing is written outside, and what is accepted is there as it was."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flame_host._packages.unpack.tree import write_tree
from flame_host.api import ArchiveError, Limits, Member, MemberKind

PART = st.one_of(st.sampled_from(["", ".", "..", "a", "A", "b", "é", "e\u0301", "a\\b", "\x00", "c" * 300]), st.text(max_size=5))
NAME = st.lists(PART, min_size=1, max_size=4).map("/".join)
MEMBER = st.builds(
    lambda name, kind, link, content: Member(name, kind, len(content) if kind == MemberKind.FILE else 0, False, link, content),
    NAME, st.sampled_from(list(MemberKind)), NAME, st.binary(max_size=20),
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(MEMBER, max_size=6))
def test_nothing_is_written_outside_and_every_link_stays_inside(members):
    with tempfile.TemporaryDirectory() as directory:
        outside, inside = Path(directory), Path(directory, "inside")
        inside.mkdir()
        with contextlib.suppress(ArchiveError):
            write_tree(members, inside, Limits(), compressed_size=100)
            for member in members:
                if member.kind == MemberKind.FILE:
                    assert (inside / member.name).read_bytes() == member.content
        assert os.listdir(outside) == ["inside"]
        for path in inside.rglob("*"):
            assert path.resolve().is_relative_to(inside.resolve())
