"""Legitimate archives that look odd: each is written by a tool of the world, or by hand as an old one did, and must be accepted."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zip_shapes
from tar_shapes import GNU, V7, directory, entry, gnu_long, hardlink, header, pax, symlink, tar

LONG = "/".join(["directory-with-a-rather-long-name"] * 4) + "/" + "file-with-a-long-name-" * 4 + ".txt"
TOO_LONG_FOR_USTAR = "/".join(["directory-with-a-rather-long-name"] * 9) + "/" + "file-with-a-very-long-name-" * 8 + ".txt"
TREE: dict[str, bytes | str | None] = {
    "plain.txt": b"plain\n",
    "empty.txt": b"",
    "dir/nested/deep.py": b"x = 1\n",
    "empty-dir": None,
    LONG: b"long",
    "naïve/日本語.txt": "ünïcode".encode(),
    "with space.txt": b"s",
    "-dash": b"d",
    "large.bin": bytes(range(256)) * 6000,
    TOO_LONG_FOR_USTAR: b"longer",
    "link": "plain.txt",
    "dir/up": "../plain.txt",
    "dir/there": "nested",
    "chain": "link",
}
"""Bytes are a file, text is a symbolic link, None an empty directory."""

Tree = dict[str, "bytes | str | None"]


class Odd(NamedTuple):
    """An archive to be written to a path, and what must come out."""

    name: str
    format: str
    write: Callable[[Path], None]
    expected: Tree


def plant(root: Path, tree: Tree) -> None:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content)


def harvest(root: Path) -> Tree:
    """The tree as it stands; directories that hold something are left out."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name] = None
    return found


def cases() -> Iterator[Odd]:
    yield from by_tarfile()
    yield from by_gnu_tar()
    yield from by_hand()
    yield from by_compressors()
    yield from by_zipfile()
    yield from by_info_zip()
    yield from zips_by_hand()


def by_tarfile() -> Iterator[Odd]:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    for title, number in formats.items():
        for mode, name in (("w", "tar"), ("w:gz", "tar.gz"), ("w:bz2", "tar.bz2"), ("w:xz", "tar.xz")):
            if title != "gnu" or mode == "w":
                tree = {path: content for path, content in TREE.items() if title != "ustar" or path != TOO_LONG_FOR_USTAR}
                yield Odd(f"tarfile {title} {name}", name, _tarfile(number, mode, tree), tree)
    yield Odd("tarfile stream", "tar.gz", _tarfile(tarfile.PAX_FORMAT, "w|gz", TREE), TREE)
    yield Odd("tarfile with fractional times", "tar", _tarfile(tarfile.PAX_FORMAT, "w", TREE, mtime=1.5), TREE)
    yield Odd("tarfile with times before 1970", "tar", _tarfile(tarfile.GNU_FORMAT, "w", TREE, mtime=-5), TREE)
    yield Odd("tarfile with large owners", "tar", _tarfile(tarfile.GNU_FORMAT, "w", TREE, uid=1 << 31), TREE)
    yield Odd("tarfile with unicode owners", "tar", _tarfile(tarfile.PAX_FORMAT, "w", TREE, uname="Łukasz"), TREE)


def _tarfile(format: int, mode: str, tree: Tree, **fields: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        root = path.parent / "source"
        plant(root, tree)

        def change(info: tarfile.TarInfo) -> tarfile.TarInfo:
            for key, value in fields.items():
                setattr(info, key, value)
            return info

        with tarfile.open(str(path), mode, format=format) as archive:  # type: ignore[call-overload]
            for child in sorted(root.iterdir()):
                archive.add(child, child.name, filter=change)

    return write


def by_gnu_tar() -> Iterator[Odd]:
    for title, options in (
        ("gnu", ["--format=gnu"]),
        ("oldgnu", ["--format=oldgnu"]),
        ("pax", ["--format=posix"]),
        ("gzip", ["-z"]),
        ("bzip2", ["-j"]),
        ("xz", ["-J"]),
        ("sorted, without owners", ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]),
        ("small blocks", ["-b1"]),
        ("dereferencing hard links", ["--hard-dereference"]),
        ("pax without times", ["--format=posix", "--pax-option=delete=atime,delete=ctime"]),
        ("pax with a global comment", ["--format=posix", "--pax-option=comment=hello"]),
    ):
        suffix = {"gzip": "tar.gz", "bzip2": "tar.bz2", "xz": "tar.xz"}.get(title, "tar")
        yield Odd(f"GNU tar {title}", suffix, _command("tar", options, "-cf"), TREE)


def _command(tool: str, options: list[str], *create: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
        root = path.parent / "source"
        plant(root, TREE)
        command = [tool, *options, *create, str(path), "."]
        subprocess.run(command, cwd=root, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    return write


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def by_hand() -> Iterator[Odd]:
    hello: Tree = {"hello": b"hi"}
    file = entry(b"hello", b"hi")
    v7 = {"magic": V7}
    yield Odd("v7 file and directory", "tar", _bytes(tar(entry(b"d/", kind=b"\0", **v7), entry(b"d/f", b"x", b"\0", **v7))), {"d/f": b"x"})
    yield Odd("v7 empty directory", "tar", _bytes(tar(entry(b"d/", kind=b"\0", **v7))), {"d": None})
    yield Odd("v7 link", "tar", _bytes(tar(entry(b"f", b"x", b"\0", **v7), entry(b"l", b"", b"2", b"f", **v7))), {"f": b"x", "l": "f"})
    yield Odd("prefix", "tar", _bytes(tar(entry(b"f", b"x", prefix=b"a/b"))), {"a/b/f": b"x"})
    yield Odd("name of exactly 100 bytes", "tar", _bytes(tar(entry(b"n" * 100, b"x"))), {"n" * 100: b"x"})
    yield Odd("prefix of exactly 155 bytes", "tar", _bytes(tar(entry(b"f", b"x", prefix=b"p" * 155))), {"p" * 155 + "/f": b"x"})
    yield Odd("component of 255 bytes", "tar", _bytes(tar(pax((b"path", b"n" * 255)), entry(b"x", b"x"))), {"n" * 255: b"x"})
    deep = "/".join(["d"] * 63) + "/f"
    yield Odd("64 deep", "tar", _bytes(tar(pax((b"path", deep.encode())), entry(b"x", b"x"))), {deep: b"x"})
    yield Odd("leading dots", "tar", _bytes(tar(directory(b"./"), directory(b"./d/"), entry(b"./d/f", b"x"))), {"d/f": b"x"})
    yield Odd("dot without slash", "tar", _bytes(tar(directory(b"."), file)), hello)
    yield Odd("directory without slash", "tar", _bytes(tar(directory(b"d"))), {"d": None})
    yield Odd("directory after its file", "tar", _bytes(tar(entry(b"d/f", b"x"), directory(b"d/"))), {"d/f": b"x"})
    yield Odd("directories nobody lists", "tar", _bytes(tar(entry(b"a/b/c", b"x"), entry(b"a/d/e", b"y"))), {"a/b/c": b"x", "a/d/e": b"y"})
    yield Odd("symlink before its target", "tar", _bytes(tar(symlink(b"l", b"hello"), file)), {**hello, "l": "hello"})
    chain = tar(symlink(b"a", b"b"), symlink(b"b", b"c"), symlink(b"c", b"hello"), file)
    yield Odd("chain of symlinks before their target", "tar", _bytes(chain), {**hello, "a": "b", "b": "c", "c": "hello"})
    yield Odd("symlink with dots", "tar", _bytes(tar(file, symlink(b"l", b"./././hello"))), {**hello, "l": "./././hello"})
    back = tar(entry(b"d/f", b"x"), symlink(b"l", b"d/../d/f"))
    yield Odd("symlink there and back", "tar", _bytes(back), {"d/f": b"x", "l": "d/../d/f"})
    yield Odd("symlink to the root", "tar", _bytes(tar(file, symlink(b"self", b"."))), {**hello, "self": "."})
    yield Odd("symlink to a directory", "tar", _bytes(tar(entry(b"d/f", b"x"), symlink(b"l", b"d/"))), {"d/f": b"x", "l": "d/"})
    yield Odd("hard link", "tar", _bytes(tar(file, hardlink(b"h", b"hello"))), {**hello, "h": b"hi"})
    yield Odd("hard link with a dot", "tar", _bytes(tar(file, hardlink(b"d/h", b"./hello"))), {**hello, "d/h": b"hi"})
    yield Odd(
        "hard link to a hard link",
        "tar",
        _bytes(tar(file, hardlink(b"g", b"hello"), hardlink(b"h", b"g"))),
        {**hello, "g": b"hi", "h": b"hi"},
    )
    yield Odd("GNU long name", "tar", _bytes(tar(gnu_long(b"n" * 200), entry(b"n" * 100, b"x", magic=GNU))), {"n" * 200: b"x"})
    both = tar(entry(b"t" * 90, b"x"), gnu_long(b"t" * 90, b"K"), gnu_long(b"l" * 150), entry(b"l" * 100, b"", b"2", b"t", magic=GNU))
    yield Odd("GNU long name and link", "tar", _bytes(both), {"t" * 90: b"x", "l" * 150: "t" * 90})
    cut = "é" * 80
    yield Odd(
        "name cut inside a character",
        "tar",
        _bytes(tar(gnu_long(cut.encode()), entry(b"x" + cut.encode()[:99], b"x", magic=GNU))),
        {cut: b"x"},
    )
    yield Odd("size in base 256", "tar", _bytes(tar(header(b"hello", b"\x80" + (2).to_bytes(11, "big")), b"hi".ljust(512, b"\0"))), hello)
    yield Odd("size with spaces", "tar", _bytes(tar(header(b"hello", b"          2 "), b"hi".ljust(512, b"\0"))), hello)
    yield Odd("PAX size that agrees", "tar", _bytes(tar(pax((b"size", b"2")), file)), hello)
    yield Odd(
        "PAX extended attributes",
        "tar",
        _bytes(tar(pax((b"SCHILY.xattr.user.x", b"\xff\0bin"), (b"LIBARCHIVE.creationtime", b"1")), file)),
        hello,
    )
    yield Odd("PAX character set UTF-8", "tar", _bytes(tar(pax((b"hdrcharset", b"ISO-IR 10646 2000 UTF-8")), file)), hello)
    yield Odd("git's global comment", "tar", _bytes(tar(pax((b"comment", b"a" * 40), kind=b"g"), file)), hello)
    label = header(b"backup of tuesday", 0, b"V", magic=GNU)
    yield Odd("GNU volume label", "tar", _bytes(tar(label, file)), hello)
    yield Odd("no members", "tar", _bytes(tar()), {})
    yield Odd("no padding behind the end", "tar", _bytes(tar(file)), hello)
    yield Odd("much padding behind the end", "tar", _bytes(tar(file) + bytes(1 << 19)), hello)


def by_compressors() -> Iterator[Odd]:
    hello: Tree = {"hello": b"hi"}
    data = tar(entry(b"hello", b"hi"))
    for name, packer in (("tar.gz", gzip.compress), ("tar.bz2", bz2.compress), ("tar.xz", lzma.compress)):
        yield Odd(f"{name} of several streams", name, _bytes(packer(data[:100]) + packer(data[100:]) + packer(b"")), hello)
    named = io.BytesIO()
    with gzip.GzipFile("hello.tar", "wb", 1, named, 12345) as stream:
        stream.write(data)
    yield Odd("gzip with name and time", "tar.gz", _bytes(named.getvalue()), hello)
    yield Odd("gzip stored", "tar.gz", _bytes(gzip.compress(data, 0)), hello)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = raw.compress(data) + raw.flush() + struct.pack("<LL", zlib.crc32(data), len(data))
    yield Odd("gzip with comment and extra", "tar.gz", _bytes(b"\x1f\x8b\x08\x14" + bytes(6) + b"\x03\0abc" + b"remark\0" + body), hello)
    yield Odd("xz without checksum", "tar.xz", _bytes(lzma.compress(data, check=lzma.CHECK_NONE)), hello)
    yield Odd("xz with SHA-256", "tar.xz", _bytes(lzma.compress(data, check=lzma.CHECK_SHA256)), hello)
    yield Odd("xz at its best", "tar.xz", _bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)), hello)
    yield Odd("bzip2 at level 1", "tar.bz2", _bytes(bz2.compress(data, 1)), hello)


class _Unseekable(io.RawIOBase):
    """Makes `zipfile` write data descriptors."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


FILES: Tree = {name: content for name, content in TREE.items() if isinstance(content, bytes)} | {"empty-dir": None}


def by_zipfile() -> Iterator[Odd]:
    for title, kwargs in (
        ("stored", {}),
        ("deflated", {"compression": zipfile.ZIP_DEFLATED}),
        ("level 1", {"compression": 8, "compresslevel": 1}),
    ):
        yield Odd(f"zipfile {title}", "zip", _zipfile(**kwargs), FILES)
    yield Odd("zipfile with data descriptors", "zip", _zipfile(unseekable=True, compression=zipfile.ZIP_DEFLATED), FILES)
    yield Odd("zipfile with data descriptors, stored", "zip", _zipfile(unseekable=True), FILES)
    yield Odd("zipfile with zip64 in every member", "zip", _zipfile(force_zip64=True), FILES)
    yield Odd("zipfile with zip64 and data descriptors", "zip", _zipfile(force_zip64=True, unseekable=True), FILES)
    # As libarchive (bsdtar) writes: the descriptor behind tells what was not known, and the sizes that were stand in front already.
    stored = zip_shapes.Entry(b"hello", b"hi", method=0, flags=zip_shapes.UTF8 | zip_shapes.STREAMED, local={"crc": 0})
    packed = zip_shapes.Entry(b"hello", b"hi", flags=zip_shapes.UTF8 | zip_shapes.STREAMED, local={"crc": 0, "packed": b""})
    for title, member in (("stored", stored), ("deflated", packed)):
        data = zip_shapes.archive(dataclasses.replace(member, tail=zip_shapes.descriptor(member)))
        yield Odd(f"libarchive {title}", "zip", _bytes(data), {"hello": b"hi"})
    yield Odd("zipfile with a comment", "zip", _zipfile(comment=b"commit 0123456789"), FILES)


def _zipfile(*, unseekable: bool = False, force_zip64: bool = False, comment: bytes = b"", **kwargs: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        target: Any = _Unseekable(path) if unseekable else path
        with zipfile.ZipFile(target, "w", **kwargs) as archive:
            for name, content in FILES.items():
                info = zipfile.ZipInfo(name if content is not None else f"{name}/")
                info.compress_type = archive.compression
                with archive.open(info, "w", force_zip64=force_zip64) as member:
                    member.write(content or b"")  # type: ignore[arg-type]
            archive.comment = comment
        if unseekable:
            target.close()

    return write


def by_info_zip() -> Iterator[Odd]:
    tree = {name: content for name, content in TREE.items() if name.isascii()}
    for title, options in (("following nothing", ["-y"]), ("stored", ["-y", "-0"]), ("without extra fields", ["-y", "-X"])):
        yield Odd(f"Info-ZIP {title}", "zip", _info_zip(options, tree), tree)
    yield Odd("Info-ZIP with Unicode names", "zip", _info_zip(["-y"], TREE), TREE)
    yield Odd("Info-ZIP with UTF-8 names", "zip", _info_zip(["-y", "-UN=UTF8"], TREE), TREE)
    yield Odd("Info-ZIP without directories", "zip", _info_zip(["-y", "-D"], tree), {k: v for k, v in tree.items() if v is not None})


def _info_zip(options: list[str], tree: Tree) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if shutil.which("zip") is None:
            pytest.skip("no zip here")
        root = path.parent / "source"
        plant(root, tree)
        command = ["zip", "-q", "-r", *options, str(path.with_name("made.zip")), "."]
        subprocess.run(command, cwd=root, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        path.with_name("made.zip").rename(path)

    return write


def zips_by_hand() -> Iterator[Odd]:
    entry, archive, streamed = zip_shapes.Entry, zip_shapes.archive, zip_shapes.UTF8 | zip_shapes.STREAMED
    for signed in (True, False):
        for wide in (True, False):
            member = entry(b"s", b"streamed", flags=streamed)
            whole = entry(b"s", b"streamed", flags=streamed, tail=zip_shapes.descriptor(member, signed=signed, wide=wide))
            title = f"{'with' if signed else 'without'} signature, {64 if wide else 32} bits"
            yield Odd(f"data descriptor {title}", "zip", _bytes(archive(whole, entry(b"f", b"x"))), {"s": b"streamed", "f": b"x"})
    local, central = zip_shapes.parts(entry(b"f", b"x"))
    size, start = len(central), len(local)
    end64 = zip_shapes.end64(1, size, start, start + size)
    full = zip_shapes.end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    yield Odd("zip64 end record", "zip", _bytes(local + central + end64 + full), {"f": b"x"})
    yield Odd("zip64 end record nobody needs", "zip", _bytes(local + central + end64 + zip_shapes.end(1, size, start)), {"f": b"x"})
    told = zip_shapes.extra(1, struct.pack("<QQ", 2, 4))
    yield Odd("local zip64 field nobody needs", "zip", _bytes(archive(entry(b"f", b"xx", local_extra=told))), {"f": b"xx"})
    yield Odd("no members in a zip", "zip", _bytes(archive()), {})
    yield Odd(
        "of a system without modes",
        "zip",
        _bytes(archive(entry(b"d/", mode=0, system=0), entry(b"f", b"x", mode=0, system=0))),
        {"d": None, "f": b"x"},
    )
    yield Odd("empty file, deflated", "zip", _bytes(archive(entry(b"f"))), {"f": b""})
    native = "é".encode("cp437")
    told = zip_shapes.extra(0x7075, b"\x01" + struct.pack("<L", zlib.crc32(native)) + "é".encode())
    yield Odd("Unicode name beside a native one", "zip", _bytes(archive(entry(native, b"x", flags=0, extra=told))), {"é": b"x"})
    backwards = entry(b"first", b"1"), entry(b"second", b"2")
    local, _ = zip_shapes.parts(*backwards)
    central = backwards[1].central_record(len(backwards[0].local_record())) + backwards[0].central_record(0)
    data = local + central + zip_shapes.end(2, len(central), len(local))
    yield Odd("directory in another order", "zip", _bytes(data), {"first": b"1", "second": b"2"})
    inner = archive(entry(b"inner", b"x"))
    yield Odd("a zip stored inside", "zip", _bytes(archive(entry(b"a.zip", inner, 0))), {"a.zip": inner})
    yield Odd("member comments", "zip", _bytes(archive(entry(b"f", b"x", comment=b"remark"))), {"f": b"x"})
