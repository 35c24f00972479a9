"""Hostile zip archives: each breaks one rule."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

from corpus import BAD_NAMES, CLASHES, LARGE_NAMES, Case, damaged, over, unsafe
from zip_shapes import DIRECTORY, STREAMED, SYMLINK, UTF8, Entry, archive, descriptor, end, end64, extra, parts

from flame_host.api import Limits

HELLO = Entry(b"hello", b"hello, world " * 20)


def cases() -> Iterator[Case]:
    for part in (names, links, kinds, flags, mismatches, layouts, ends, end64s, extras, contents, descriptors, budgets):
        for case in part():
            yield case._replace(name=f"zip: {case.name}")


def names() -> Iterator[Case]:
    for title, name, rule in BAD_NAMES:
        yield unsafe(f"file, {title}", "zip", archive(Entry(name, b"x")), rule)
    for title, name, budget in LARGE_NAMES:
        yield over(title, "zip", archive(Entry(name)), budget)
    for title, first, second, rule in CLASHES:
        yield unsafe(f"clash, {title}", "zip", archive(Entry(first.encode(), b"1"), Entry(second.encode(), b"2")), rule)
    yield unsafe("empty name", "zip", archive(Entry(b"")), "empty-name")
    yield unsafe("name with NUL", "zip", archive(Entry(b"ok\0../outside")), "control-character")
    yield unsafe("absolute directory", "zip", archive(Entry(b"/etc/", mode=DIRECTORY)), "absolute-path")
    yield unsafe("not UTF-8 though it says so", "zip", archive(Entry(b"\xff")), "not-unicode")
    yield unsafe("of an unknown character set", "zip", archive(Entry("é".encode("cp437"), flags=0)), "not-unicode")


def links() -> Iterator[Case]:
    for title, target, rule in (
        ("absolute", b"/etc/passwd", "symlink-absolute"),
        ("outside", b"../outside", "symlink-outside"),
        ("missing", b"no", "symlink-target"),
        ("itself", b"link", "symlink-cycle"),
        ("through a file", b"hello/x", "symlink-target"),
        ("empty", b"", "symlink-target"),
        ("control character", b"hello\0", "control-character"),
        ("not UTF-8", b"\xff", "not-unicode"),
        ("longer than any path", b"d/" * 3000, "link-too-long"),
    ):
        yield unsafe(f"symlink, {title}", "zip", archive(HELLO, Entry(b"link", target, mode=SYMLINK)), rule)
    yield unsafe("file through a symlink", "zip", archive(Entry(b"l", b".", mode=SYMLINK), Entry(b"l/x")), "not-a-directory")
    yield damaged("symlink with a wrong checksum", "zip", archive(HELLO, Entry(b"link", b"hello", mode=SYMLINK, crc=1)))


def kinds() -> Iterator[Case]:
    for title, system in (("made on DOS", 0), ("made on Unix", 3)):
        folder = archive(Entry(b"file", b"x", system=system))
        attributes = folder.index(b"PK\x01\x02") + 38
        told = folder[:attributes] + bytes([0x10]) + folder[attributes + 1 :]
        yield unsafe(f"file that DOS takes for a directory, {title}", "zip", told, "kind-mismatch")
    for title, mode in (
        ("pipe", 0o010644),
        ("character device", 0o020644),
        ("block device", 0o060644),
        ("socket", 0o140644),
        ("unknown", 0o170000),
    ):
        yield unsafe(f"type {title}", "zip", archive(Entry(b"f", mode=mode)), "member-type")
    yield unsafe("file with a slash", "zip", archive(Entry(b"d/", b"x")), "kind-mismatch")
    yield unsafe("directory without a slash", "zip", archive(Entry(b"d", mode=DIRECTORY)), "kind-mismatch")
    yield unsafe("symlink with a slash", "zip", archive(HELLO, Entry(b"d/", b"hello", mode=SYMLINK)), "kind-mismatch")
    yield unsafe("directory with content", "zip", archive(Entry(b"d/", b"hidden", mode=DIRECTORY)), "size-of-directory")
    yield unsafe("directory with stored content", "zip", archive(Entry(b"d/", b"x", 0, mode=0, system=0)), "size-of-directory")


def flags() -> Iterator[Case]:
    for title, bits, rule in (
        ("encrypted", 0x1, "encrypted"),
        ("strongly encrypted", 0x41, "encrypted"),
        ("with a masked directory", 0x2000, "encrypted"),
        ("a patch", 0x20, "flags"),
        ("reserved", 0x4000, "flags"),
        ("unknown", 0x80, "flags"),
    ):
        yield unsafe(f"member {title}", "zip", archive(Entry(flags=UTF8 | bits)), rule)
    for method, title in ((1, "shrunk"), (6, "imploded"), (9, "deflate64"), (12, "bzip2"), (14, "lzma"), (93, "zstd"), (99, "AES")):
        yield damaged(f"method {title}", "zip", archive(Entry(data=b"x", method=method)))


def mismatches() -> Iterator[Case]:
    for title, local in (
        ("name", {"name": b"jello"}),
        ("longer name", {"name": b"hello2"}),
        ("name of a parent", {"name": b"../xx"}),
        ("method", {"method": 0}),
        ("flags", {"flags": 0}),
        ("encryption", {"flags": UTF8 | 1}),
        ("checksum", {"crc": 1}),
        ("size", {"size": 5}),
        ("compressed size", {"packed": b"12345"}),
    ):
        entry = Entry(HELLO.name, HELLO.data, local=local)
        yield unsafe(f"local and central {title} differ", "zip", archive(entry, Entry(b"next")), "local-central-mismatch")
    local, central = parts(HELLO)
    yield damaged("no local record", "zip", b"PK\x03\x05" + local[4:] + central + end(1, len(central), len(local)))


def layouts() -> Iterator[Case]:
    local, central = parts(HELLO)
    twice = central + central.replace(b"hello", b"world")
    yield unsafe("two members in one place", "zip", local + twice + end(2, len(twice), len(local)), "overlap")
    kernel = Entry(b"kernel", b"k" * 5000, 0)
    quoted = kernel.local_record()
    outer = Entry(b"outer", quoted, 0)
    begin = 30 + len(b"outer")
    directory = outer.central_record(0) + kernel.central_record(begin)
    yield unsafe(
        "a member inside another", "zip", outer.local_record() + directory + end(2, len(directory), len(outer.local_record())), "overlap"
    )
    yield unsafe("something in front", "zip", archive(HELLO, before=b"#!/bin/sh\n"), "prepended-data")
    plain = archive(HELLO)
    yield unsafe("something in front, offsets as before", "zip", b"MZ executable" + plain, "prepended-data")
    yield unsafe("something between members", "zip", archive(Entry(b"a", b"x", tail=b"hidden"), HELLO), "gap")
    yield unsafe("much between members", "zip", archive(Entry(b"a", b"x", tail=b"hidden" * 100), HELLO), "gap")
    yield unsafe("something before the directory", "zip", archive(Entry(b"a", b"x", tail=b"hidden")), "gap")
    yield unsafe("a member nobody lists", "zip", archive(Entry(b"a", b"x", tail=HELLO.local_record())), "gap")
    yield unsafe("something behind the directory", "zip", local + central + b"hidden" + end(1, len(central), len(local)), "prepended-data")
    yield unsafe("offset beyond the directory", "zip", archive(Entry(b"a", b"x", offset=500)), "overlap")
    yield unsafe("offset beyond the end", "zip", archive(Entry(b"a", b"x", offset=1 << 30)), "overlap")
    yield unsafe("compressed size beyond the end", "zip", archive(Entry(b"a", b"x", central={"packed": b"x" * 9000})), "overlap")
    yield unsafe("compressed size into the next", "zip", archive(Entry(b"a", b"x", central={"packed": b"x" * 9}), HELLO), "overlap")


def ends() -> Iterator[Case]:
    plain = archive(HELLO)
    local, central = parts(HELLO)
    n, size, start = 1, len(central), len(local)
    yield damaged("nothing at all", "zip", b"")
    yield damaged("no end record", "zip", local + central)
    yield damaged("cut in the end record", "zip", plain[:-1])
    yield damaged("cut in the directory", "zip", plain[: start + 10])
    yield damaged("only the second half", "zip", plain[len(plain) // 2 :])
    yield unsafe("text behind the end", "zip", plain + b"hidden", "trailing-data")
    yield unsafe("zeros behind the end", "zip", plain + bytes(100), "trailing-data")
    yield unsafe("another zip behind the end", "zip", plain + archive(Entry(b"second")), "prepended-data")
    yield damaged("comment shorter than it says", "zip", archive(HELLO, comment=b"remark")[:-3])
    for title, mark in (("directory", b"PK\x01\x02"), ("member", b"PK\x03\x04"), ("zip64 end", b"PK\x06\x06"), ("locator", b"PK\x06\x07")):
        yield unsafe(f"comment with a {title} record", "zip", archive(HELLO, comment=b"xx" + mark + b"yy"), "zip-in-comment")
    nested = archive(Entry(b"second"))
    yield unsafe("comment with a whole zip", "zip", archive(HELLO, comment=nested), "end-ambiguous")
    hidden = end(n, size, start, comment=bytes(5) + end(n, size, start))
    yield unsafe("two end records that both reach the end", "zip", local + central + hidden, "end-ambiguous")
    yield damaged("count too small", "zip", local + central + end(0, size, start))
    yield damaged("count too large", "zip", local + central + end(2, size, start))
    yield unsafe("count of this disk differs", "zip", local + central + end(1, size, start, here=0), "several-disks")
    yield unsafe("second of several disks", "zip", local + central + end(1, size, start, disk=1), "several-disks")
    yield unsafe("directory smaller than it says", "zip", local + central + end(1, size - 1, start), "prepended-data")
    yield damaged("directory larger than it says", "zip", local + central + end(1, size + 1, start))
    yield damaged("directory beyond the end", "zip", local + central + end(1, size, 1 << 30))
    yield unsafe("directory before it is", "zip", local + central + end(1, size, start - 10), "prepended-data")
    broken = central[:2] + b"xx" + central[4:]
    yield damaged("directory of other records", "zip", local + broken + end(1, size, start))
    long = central[:28] + struct.pack("<H", 9999) + central[30:]
    yield damaged("name longer than the directory", "zip", local + long + end(1, size, start))
    elsewhere = central[:34] + struct.pack("<H", 1) + central[36:]
    yield unsafe("member on another disk", "zip", local + elsewhere + end(1, size, start), "several-disks")


def end64s() -> Iterator[Case]:
    local, central = parts(HELLO)
    size, start = len(central), len(local)
    at = start + size
    full = end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    body = local + central
    yield unsafe("end records of different counts", "zip", body + end64(1, size, start, at) + end(2, size, start), "end-mismatch")
    yield unsafe("end records of different places", "zip", body + end64(1, size, start, at) + end(1, size, 0), "end-mismatch")
    yield unsafe("locator to elsewhere", "zip", body + end64(1, size, start, at, located=0) + full, "end-mismatch")
    yield unsafe("locator beyond the end", "zip", body + end64(1, size, start, at, located=1 << 62) + full, "end-mismatch")
    yield unsafe("locator of several disks", "zip", body + end64(1, size, start, at, disks=2) + full, "several-disks")
    yield damaged("zip64 end record of another kind", "zip", body + end64(1, size, start, at, signature=b"PK\x06\x05") + full)
    yield damaged("zip64 directory beyond the end", "zip", body + end64(1, size, 1 << 40, at) + full)
    yield unsafe("zip64 directory before it is", "zip", body + end64(1, size, start - 1, at) + full, "prepended-data")
    yield over("zip64 count of billions", "zip", body + end64(1 << 40, size, start, at) + full, "members")
    yield damaged("full fields and no zip64", "zip", body + full)


def extras() -> Iterator[Case]:
    zip64 = extra(1, struct.pack("<Q", 5))
    yield unsafe("zip64 field that is not needed", "zip", archive(Entry(data=b"12345", extra=zip64)), "zip64-mismatch")
    yield unsafe("zip64 field too short", "zip", archive(Entry(data=b"x", size=0xFFFFFFFF, extra=extra(1, b"1234"))), "zip64-mismatch")
    huge = extra(1, struct.pack("<Q", 1 << 63))
    yield unsafe("zip64 size overflows", "zip", archive(Entry(data=b"x", size=0xFFFFFFFF, extra=huge)), "size-overflow")
    yield unsafe("zip64 field twice", "zip", archive(Entry(data=b"12345", size=0xFFFFFFFF, extra=zip64 + zip64)), "extra-duplicate")
    large = extra(1, struct.pack("<Q", 1 << 40))
    sized = Entry(data=b"x", size=0xFFFFFFFF, extra=large)
    yield over("zip64 size of 1 TiB", "zip", archive(replace(sized, local_extra=large)), "member-bytes")
    lie = extra(1, struct.pack("<QQ", 1 << 40, 3))
    yield unsafe("local zip64 field that lies", "zip", archive(Entry(data=b"x", local_extra=lie)), "zip64-mismatch")
    streamed = Entry(data=b"x", flags=UTF8 | STREAMED, local_extra=lie)
    lying = archive(replace(streamed, tail=descriptor(streamed)))
    yield unsafe("streamed zip64 field that lies", "zip", lying, "zip64-mismatch")
    yield unsafe("zip64 sizes differ", "zip", archive(replace(sized, local={"size": 1})), "local-central-mismatch")
    yield damaged("extra field longer than there is", "zip", archive(Entry(extra=struct.pack("<HH", 9, 500))))
    yield damaged("local extra field longer than there is", "zip", archive(Entry(local_extra=struct.pack("<HH", 9, 500))))
    other = extra(0x7075, b"\x01" + struct.pack("<L", zlib.crc32(b"file")) + b"../outside")
    yield unsafe("Unicode name that differs", "zip", archive(Entry(extra=other)), "name-mismatch")
    yield unsafe("local Unicode name that differs", "zip", archive(Entry(local_extra=other)), "name-mismatch")
    native = "é".encode("cp437")
    climb = extra(0x7075, b"\x01" + struct.pack("<L", zlib.crc32(native)) + b"../outside")
    yield unsafe("Unicode name of a parent", "zip", archive(Entry(native, flags=0, extra=climb)), "parent-path")
    stale = extra(0x7075, b"\x01" + struct.pack("<L", 7) + b"file")
    yield unsafe("Unicode name of another name", "zip", archive(Entry(native, flags=0, extra=stale)), "not-unicode")


def contents() -> Iterator[Case]:
    large = bytes(range(256)) * 8192
    for title, data in (("small", HELLO.data), ("large", large)):
        packed = Entry(data=data).body()
        yield damaged(f"checksum wrong, {title}", "zip", archive(Entry(data=data, crc=1)))
        yield damaged(f"checksum of a stored file wrong, {title}", "zip", archive(Entry(data=data, method=0, crc=1)))
        yield damaged(f"expands to more, {title}", "zip", archive(Entry(data=data, size=len(data) - 1)))
        yield damaged(f"expands to less, {title}", "zip", archive(Entry(data=data, size=len(data) + 1)))
        yield damaged(f"something behind the stream, {title}", "zip", archive(Entry(data=data, packed=packed + b"hidden")))
        yield damaged(f"stream cut, {title}", "zip", archive(Entry(data=data, packed=packed[:-2])))
        yield damaged(f"no deflate, {title}", "zip", archive(Entry(data=data, packed=b"\xff" * len(packed))))
        yield unsafe(f"stored with two sizes, {title}", "zip", archive(Entry(data=data, method=0, size=len(data) + 1)), "stored-size")
    yield damaged("no stream at all", "zip", archive(Entry(data=b"x", packed=b"")))


def descriptors() -> Iterator[Case]:
    streamed = Entry(b"s", b"streamed content", flags=UTF8 | STREAMED)
    true = descriptor(streamed)
    for title, tail in (
        ("missing", b""),
        ("cut", true[:-1]),
        ("of a wrong checksum", true[:4] + b"\0\0\0\0" + true[8:]),
        ("of a wrong size", true[:-4] + b"\1\0\0\0"),
        ("of a wrong compressed size", true[:8] + b"\1\0\0\0" + true[12:]),
        ("of mixed widths", true + bytes(4)),
    ):
        yield unsafe(
            f"data descriptor {title}", "zip", archive(Entry(b"s", streamed.data, flags=streamed.flags, tail=tail)), "data-descriptor"
        )
    yield unsafe(
        "something behind the data descriptor",
        "zip",
        archive(Entry(b"s", streamed.data, flags=streamed.flags, tail=true + b"hidden" * 9)),
        "gap",
    )
    yield unsafe(
        "data descriptor nobody announces", "zip", archive(Entry(b"s", streamed.data, tail=descriptor(Entry(b"s", streamed.data)))), "gap"
    )


def budgets() -> Iterator[Case]:
    yield over("bomb of one file", "zip", archive(Entry(data=bytes(40 << 20))), "ratio")
    yield over("bomb of many files", "zip", archive(*(Entry(b"%d" % n, bytes(1 << 20)) for n in range(40))), "ratio")
    yield over("size of 4 GiB in two bytes", "zip", archive(Entry(data=b"x", size=0xFFFFFFF0)), "ratio")
    yield over("one file too large", "zip", archive(Entry(data=bytes(2000))), "member-bytes", Limits(member_bytes=1999))
    yield over(
        "files too large together",
        "zip",
        archive(*(Entry(b"%d" % n, bytes(1000)) for n in range(3))),
        "expanded-bytes",
        Limits(expanded_bytes=2999),
    )
    yield over("too many members", "zip", archive(*(Entry(b"%d" % n) for n in range(11))), "members", Limits(members=10))
    yield over("directory too large", "zip", archive(*(Entry(b"%099d" % n) for n in range(20))), "header-bytes", Limits(header_bytes=1000))
    yield over("comments too large", "zip", archive(Entry(comment=b"x" * 60_000)), "header-bytes", Limits(header_bytes=50_000))
    yield over("archive too large", "zip", archive(Entry(data=b"x")), "compressed-bytes", Limits(compressed_bytes=50))
