"""The same tree gives the same bytes, on every Python and every machine."""

from __future__ import annotations

import hashlib
import io
import zipfile

from flame_archive_zip.writer import deflate_agrees
from flame_archive_zip.zip import Zip

from flame_host.api import Member, MemberKind
from flame_host.testing.archivers import pack

MEMBERS = [
    Member("app", MemberKind.DIRECTORY),
    *(Member(f"app/module{n}.py", size=2000, content=(b"def f%d(): return %d\n" % (n, n) * 200)[:2000]) for n in range(300)),
    Member("app/naïve.py", size=3, executable=True, content=b"abc"),
    Member("app/large.bin", size=9 << 20, content=bytes(9 << 20)),
    Member("app/link", MemberKind.SYMLINK, link="module0.py"),
]
GOLDEN = "2fe54d1060b580a2e126dc778ad0114eafab59da3c560181aca853eef4bf0c8b"


def test_the_bytes_are_those_of_every_other_machine() -> None:
    assert hashlib.sha256(pack(Zip(), MEMBERS)).hexdigest() == GOLDEN


def test_this_machines_deflate_is_the_one_we_know() -> None:
    assert deflate_agrees()


def test_the_standard_library_reads_what_is_written() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(Zip(), MEMBERS))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["app/", *(member.name for member in MEMBERS[1:])]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
