"""The same tree gives the same bytes: on every Python, every machine, and where the fast compressor is of no use."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from flame_archive_tar.compression import Gzip
from flame_archive_tar.tar import Tar, TarBz2, TarGz, TarXz

from flame_host.api import Member, MemberKind
from flame_host.testing.archivers import contents, pack

MEMBERS = [
    Member("app", MemberKind.DIRECTORY),
    *(Member(f"app/module{n}.py", size=2000, content=(b"def f%d(): return %d\n" % (n, n) * 200)[:2000]) for n in range(300)),
    Member("app/" + "long/" * 30 + "naïve.py", size=3, executable=True, content=b"abc"),
    Member("app/link", MemberKind.SYMLINK, link="module0.py"),
]


class StoredGzip(Gzip):
    """A machine whose deflate gives other bytes."""

    @classmethod
    def agrees(cls) -> bool:
        return False


class TarStored(TarGz):
    stream = StoredGzip


GOLDEN = {
    Tar: "a1a4e726f67222636c95d6b12a8b4b358046c34efcc58f643749bc6c2ea17e6b",
    TarGz: "0611a75f393d1914eea0f0f2903e768746142b6ba2c5a92b91bce11f958223b9",
    TarBz2: "20ddaed601e4e630f3a45a02338ec83d3ecba5f4b46b3fe38559495eb51ee278",
    TarXz: "1241a6d1d218959c3daceaede31396dff341f0a094359fd25164eddf9aa40dcf",
    TarStored: "589bf8458d0b21171716b831b5d7fea1743e0da97853304787cc8b8c1545e9d2",
}


@pytest.mark.parametrize("format", GOLDEN, ids=lambda format: format.__name__)
def test_the_bytes_are_those_of_every_other_machine(format: type[Tar]) -> None:
    assert hashlib.sha256(pack(format(), MEMBERS)).hexdigest() == GOLDEN[format]


def test_this_machines_deflate_is_the_one_we_know() -> None:
    assert Gzip.agrees()


def test_what_is_stored_for_want_of_deflate_is_read_by_all() -> None:
    data = pack(TarStored(), MEMBERS)
    assert contents(TarGz(), data) == contents(TarGz(), pack(TarGz(), MEMBERS))
    assert gzip.decompress(data) == pack(Tar(), MEMBERS)
