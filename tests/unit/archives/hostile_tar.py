"""Hostile tar archives: each breaks one rule."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator

from corpus import BAD_NAMES, CLASHES, LARGE_NAMES, Case, damaged, over, unsafe
from tar_shapes import (
    BLOCK,
    GNU,
    V7,
    directory,
    entry,
    gnu_long,
    hardlink,
    header,
    named,
    octal,
    pax,
    record,
    symlink,
    tar,
)

from flame_host.api import Limits


def cases() -> Iterator[Case]:
    for part in (names, links, hard_links, kinds, numbers, pax_headers, pax_records, gnu_headers, ends, streams, budgets):
        for case in part():
            yield case._replace(name=f"{case.format}: {case.name}")


def names() -> Iterator[Case]:
    for title, name, rule in BAD_NAMES:
        yield unsafe(f"file, {title}", "tar", tar(named(name, b"x")), rule)
    for title, name, rule in BAD_NAMES[:7]:
        yield unsafe(f"directory, {title}", "tar", tar(directory(name)), rule)
        yield unsafe(f"symlink named {title}", "tar", tar(entry(b"ok"), symlink(name, b"ok")), rule)
        yield unsafe(f"hard link named {title}", "tar", tar(entry(b"ok"), hardlink(name, b"ok")), rule)
    for title, name, budget in LARGE_NAMES:
        yield over(title, "tar", tar(named(name)), budget)
    for title, first, second, rule in CLASHES:
        yield unsafe(f"clash, {title}", "tar", tar(entry(first.encode(), b"1"), entry(second.encode(), b"2")), rule)
    yield unsafe("empty name", "tar", tar(entry(b"")), "empty-name")
    yield unsafe("directory is the root of all", "tar", tar(directory(b"/")), "absolute-path")
    yield unsafe("absolute by prefix", "tar", tar(entry(b"passwd", prefix=b"/etc")), "absolute-path")
    yield unsafe("parent by prefix", "tar", tar(entry(b"outside", prefix=b"..")), "parent-path")
    yield unsafe("not UTF-8", "tar", tar(entry(b"\xff\xfe")), "not-unicode")
    yield unsafe("directory not UTF-8", "tar", tar(entry(b"\xc3/file")), "not-unicode")
    yield unsafe("name behind NUL", "tar", tar(entry(b"ok\0../outside")), "name-after-nul")
    yield unsafe("link behind NUL", "tar", tar(entry(b"ok"), symlink(b"l", b"ok\0/etc")), "name-after-nul")
    yield unsafe("file with a slash", "tar", tar(entry(b"a/", b"x")), "slash-at-end")
    yield unsafe("directory listed twice", "tar", tar(directory(b"a/"), directory(b"a")), "duplicate")
    yield unsafe("directory over a file", "tar", tar(entry(b"a"), directory(b"a/")), "duplicate")
    yield unsafe("directory differing in case", "tar", tar(directory(b"a/"), directory(b"A/")), "duplicate")


def links() -> Iterator[Case]:
    targets = [
        ("absolute", b"/etc/passwd", "symlink-absolute"),
        ("outside", b"../outside", "symlink-outside"),
        ("outside through a directory", b"d/../../outside", "symlink-outside"),
        ("the root's parent", b"..", "symlink-outside"),
        ("missing", b"nowhere", "symlink-target"),
        ("itself", b"link", "symlink-cycle"),
        ("through a file", b"ok/x", "symlink-target"),
        ("through a missing directory and back", b"x/../ok", "symlink-target"),
        ("empty part", b"d//f", "symlink-target"),
        ("no target", b"", "symlink-target"),
        ("control character", b"ok\n", "control-character"),
        ("backslash", b"d\\f", "backslash"),
        ("not UTF-8", b"\xff", "not-unicode"),
    ]
    for title, target, rule in targets:
        yield unsafe(f"symlink, {title}", "tar", tar(entry(b"ok"), entry(b"d/f"), symlink(b"link", target)), rule)
    long = pax((b"linkpath", b"d/" * 600 + b"f")) + symlink(b"link", b"d")
    yield over("symlink target of 1201 bytes", "tar", tar(entry(b"d/f"), long), "name-bytes")
    yield unsafe("symlinks in a circle", "tar", tar(symlink(b"a", b"b"), symlink(b"b", b"c"), symlink(b"c", b"a")), "symlink-cycle")
    yield unsafe("symlink through a symlink", "tar", tar(entry(b"d/f"), symlink(b"l", b"d"), symlink(b"m", b"l/f")), "symlink-target")
    chain = tar(entry(b"d/e/f"), symlink(b"d/e/up", b".."), symlink(b"out", b"d/e/up/../../../outside"))
    yield unsafe("symlink out by way of another", "tar", chain, "symlink-target")
    yield unsafe("file through a symlink", "tar", tar(directory(b"d"), symlink(b"l", b"d"), entry(b"l/f", b"x")), "not-a-directory")
    yield unsafe("file through a symlink to outside", "tar", tar(symlink(b"l", b"/tmp"), entry(b"l/f", b"x")), "not-a-directory")
    yield unsafe("directory through a symlink", "tar", tar(symlink(b"l", b"."), directory(b"l/d")), "not-a-directory")
    yield unsafe("file over a symlink", "tar", tar(symlink(b"l", b"/etc/passwd"), entry(b"l", b"x")), "duplicate")
    yield unsafe("directory over a symlink", "tar", tar(symlink(b"l", b"/tmp"), directory(b"l/")), "duplicate")
    yield unsafe("symlink over a file", "tar", tar(entry(b"f"), symlink(b"f", b"f")), "duplicate")
    yield unsafe("symlink over a directory", "tar", tar(entry(b"d/f"), symlink(b"d", b"d")), "duplicate")
    yield unsafe("symlink over a symlink", "tar", tar(entry(b"f"), symlink(b"l", b"f"), symlink(b"L", b"f")), "duplicate")
    yield unsafe("hard link through a symlink", "tar", tar(symlink(b"l", b"."), hardlink(b"h", b"l/f")), "hardlink-target")
    # The shape of CVE-2025-4517: directories so deep that realpath gives up, then a link through them.
    deep = b"/".join([b"d" * 247] * 4)
    climb = pax((b"linkpath", deep + b"/../../../../../outside")) + symlink(b"escape", b"d")
    yield unsafe("symlink climbing out of depth", "tar", tar(named(deep + b"/f"), climb), "symlink-outside")
    for title, kind in (("symlink", b"2"), ("hard link", b"1"), ("directory", b"5")):
        yield unsafe(f"{title} with content", "tar", tar(entry(b"f"), header(b"l", 600, kind, b"f"), bytes(1024)), "size-of-link")


def hard_links() -> Iterator[Case]:
    targets = [
        ("absolute", b"/etc/passwd"),
        ("outside", b"../outside"),
        ("missing", b"nowhere"),
        ("itself", b"h"),
        ("later", b"later"),
        ("directory", b"d"),
        ("symlink", b"l"),
        ("no target", b""),
        ("dots", b"d/../ok"),
        ("other case", b"OK"),
    ]
    for title, target in targets:
        members = (entry(b"ok"), directory(b"d"), symlink(b"l", b"ok"), hardlink(b"h", target), entry(b"later"))
        yield unsafe(f"hard link, {title}", "tar", tar(*members), "hardlink-target")
    yield unsafe("hard link over its file", "tar", tar(entry(b"f"), hardlink(b"f", b"f")), "duplicate")
    many = [hardlink(b"h%d" % number, b"big") for number in range(40)]
    bomb = tar(entry(b"big", bytes(1 << 20)), *many)
    yield over("hard links as a bomb", "tar", bomb, "expanded-bytes", Limits(expanded_bytes=20 << 20))
    yield over("hard links as a compressed bomb", "tar.gz", gzip.compress(bomb), "ratio")


def kinds() -> Iterator[Case]:
    titles = {b"3": "character device", b"4": "block device", b"6": "pipe", b"7": "contiguous file", b"D": "directory dump"}
    titles |= {b"M": "continuation", b"N": "old long names", b"A": "vendor", b"9": "unknown", b"\xff": "garbage"}
    for kind, title in titles.items():
        yield unsafe(f"type {title}", "tar", tar(header(b"f", 0, kind)), "member-type")
    label = header(b"label", 0, b"V", magic=GNU)
    yield unsafe("volume label with content", "tar", tar(header(b"label", 600, b"V", magic=GNU), bytes(1024)), "volume-label")
    yield unsafe("volume label behind an extended header", "tar", tar(pax((b"path", b"x")), label), "volume-label")
    renamed = tar(pax((b"path", b"d/x")), header(b"d/", 0, b"\0", magic=V7))
    yield unsafe("directory by its slash alone, renamed by PAX", "tar", renamed, "kind-mismatch")
    yield unsafe("type GNU sparse", "tar", tar(header(b"f", 0, b"S", magic=GNU)), "sparse")


def numbers() -> Iterator[Case]:
    yield unsafe("size negative in base 256", "tar", tar(header(b"f", b"\xff" * 12)), "negative-size")
    yield unsafe("size just below zero", "tar", tar(header(b"f", b"\xff" * 11 + b"\x00")), "negative-size")
    yield unsafe("size negative in octal", "tar", tar(header(b"f", b"-0000000777")), "negative-size")
    yield unsafe("size overflows", "tar", tar(header(b"f", b"\x80\x00\x00\x00\xff" + b"\xff" * 7)), "size-overflow")
    yield unsafe("PAX header of negative size", "tar", tar(header(b"f", b"\xff" * 12, b"x")), "negative-size")
    for title, field in (
        ("decimal", b"00000000089"),
        ("hexadecimal", b"0x10"),
        ("signed", b"+0000000010"),
        ("underscored", b"1_0"),
        ("spaced", b"1 0"),
        ("text", b"huge"),
    ):
        yield damaged(f"size {title}", "tar", tar(header(b"f", field), bytes(BLOCK)))
    yield damaged("size behind a NUL", "tar", tar(header(b"f", b"\0000000010\0"), bytes(BLOCK)))
    yield damaged("mode is text", "tar", tar(header(b"f", mode=b"rw-r--r")))
    yield damaged("size beyond the end", "tar", tar(header(b"f", 1 << 19), end=b""))
    yield damaged("large size beyond the end", "tar", tar(header(b"f", 2 << 20), bytes(BLOCK)))
    yield over("size of 8 GiB in one block", "tar", tar(header(b"f", octal((8 << 30) - 1)[:12])), "ratio")
    yield over("size of 1 TiB in one block", "tar", tar(header(b"f", b"\x80" + (1 << 40).to_bytes(11, "big"))), "member-bytes")
    yield damaged("checksum wrong", "tar", tar(header(b"f", checksum=b"000001\0 ")))
    yield damaged("checksum empty", "tar", tar(header(b"f", checksum=b"")))
    sound = sum(header(b"f")[:148]) + sum(header(b"f")[156:]) + 256
    for title, field in (
        ("signed", b"+%05o\0 " % sound), ("negative", b"-%05o\0 " % sound),
        ("behind a NUL", b"\0%06o " % sound), ("0o", b"0o%05o " % sound),
        ("underscored", b"0_%05o" % sound), ("spaced inside", b"00 %04o" % sound),
    ):  # fmt: skip
        yield damaged(f"checksum {title}", "tar", tar(header(b"f", checksum=field)))
    yield damaged("checksum is text", "tar", tar(header(b"f", checksum=b"sumsum")))
    good = header(b"f")
    told = int(good[148:154], 8)
    yield damaged("checksum off by the modulus", "tar", tar(header(b"f", checksum=b"%06o\0 " % (told + 65521))))
    signed = header(b"\xc3\xa9" * 20)
    yield damaged(
        "checksum of signed bytes", "tar", tar(header(b"\xc3\xa9" * 20, checksum=b"%06o\0 " % (int(signed[148:154], 8) - 256 * 40)))
    )
    yield damaged("magic unknown", "tar", tar(header(b"f", magic=b"rats\0\0\0\0")))


def pax_headers() -> Iterator[Case]:
    file = entry(b"f", b"12345")
    for title, value, rule in (
        ("smaller", b"1", "size-override"),
        ("larger", b"6", "size-override"),
        ("zero", b"0", "size-override"),
        ("negative", b"-1", "negative-size"),
        ("overflowing", b"9" * 30, "size-overflow"),
        ("text", b"five", "size-overflow"),
        ("huge over a true one", b"%d" % (1 << 34), "size-override"),
        ("of other digits", "٥".encode(), "size-overflow"),
    ):
        yield unsafe(f"PAX size {title}", "tar", tar(pax((b"size", value)), file), rule)
    for key in (b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.name", b"GNU.sparse.realsize", b"SCHILY.realsize", b"SUN.holesdata"):
        yield unsafe(f"PAX {key.decode()}", "tar", tar(pax((key, b"1")), file), "sparse")
    yield unsafe("PAX binary names", "tar", tar(pax((b"hdrcharset", b"BINARY")), file), "hdrcharset")
    yield unsafe("PAX names in another character set", "tar", tar(pax((b"hdrcharset", b"ISO-IR 8859 1 1998")), file), "hdrcharset")
    yield unsafe("PAX path parent", "tar", tar(pax((b"path", b"../outside")), file), "parent-path")
    yield unsafe("PAX path absolute", "tar", tar(pax((b"path", b"/etc/passwd")), file), "absolute-path")
    yield unsafe("PAX path with NUL", "tar", tar(pax((b"path", b"a\0b")), file), "control-character")
    yield unsafe("PAX path empty", "tar", tar(pax((b"path", b"")), file), "pax-empty")
    yield unsafe("PAX path not UTF-8", "tar", tar(pax((b"path", b"\xff")), file), "not-unicode")
    yield unsafe("PAX path with a slash for a file", "tar", tar(pax((b"path", b"d/")), file), "slash-at-end")
    yield unsafe("PAX link outside", "tar", tar(file, pax((b"linkpath", b"../../x")), symlink(b"l", b"f")), "symlink-outside")
    yield unsafe("PAX hard link outside", "tar", tar(file, pax((b"linkpath", b"/etc/passwd")), hardlink(b"l", b"f")), "hardlink-target")
    for key, value in ((b"path", b"everywhere"), (b"linkpath", b"everywhere"), (b"size", b"0")):
        yield unsafe(f"global {key.decode()}", "tar", tar(pax((key, value), kind=b"g"), file), "global-header")
    yield unsafe("global sparse", "tar", tar(pax((b"GNU.sparse.major", b"1"), kind=b"g"), file), "sparse")
    yield unsafe("global character set", "tar", tar(pax((b"hdrcharset", b"BINARY"), kind=b"g"), file), "hdrcharset")
    yield unsafe("PAX twice", "tar", tar(pax((b"path", b"a")), pax((b"path", b"b")), file), "extended-header-twice")
    yield unsafe("PAX twice, first harmless", "tar", tar(pax((b"mtime", b"1")), pax((b"path", b"b")), file), "extended-header-twice")
    yield unsafe("PAX, then global", "tar", tar(pax((b"path", b"a")), pax((b"comment", b"b"), kind=b"g"), file), "extended-header-order")
    yield damaged("PAX, then the end", "tar", tar(pax((b"path", b"a"))))


def pax_records() -> Iterator[Case]:
    file = entry(b"f")
    yield unsafe("PAX key twice", "tar", tar(pax((b"path", b"a"), (b"path", b"b")), file), "pax-duplicate")
    for title, data in (
        ("length too large", b"99 path=a\n"),
        ("length too small", b"5 path=a\n"),
        ("length zero", b"0 path=a\n"),
        ("no length", b"path=a\n"),
        ("no newline", b"9 path=ab"),
        ("no equals", b"9 pathab\n"),
        ("no key", b"5 =a\n"),
        ("negative length", b"-9 path=a\n"),
        ("length in octal", b"0o11 path=a\n"),
        ("rest", record(b"path", b"a") + b"rest"),
        ("NULs behind", record(b"path", b"a") + bytes(9)),
    ):
        yield damaged(f"PAX record, {title}", "tar", tar(pax(data), file))


def gnu_headers() -> Iterator[Case]:
    file = entry(b"f", magic=GNU)
    yield unsafe("GNU name parent", "tar", tar(gnu_long(b"../" + b"x" * 120), file), "parent-path")
    yield unsafe("GNU name hidden behind NUL", "tar", tar(gnu_long(b"a\0../outside"), file), "name-after-nul")
    yield unsafe("GNU name twice", "tar", tar(gnu_long(b"a"), gnu_long(b"b"), file), "extended-header-twice")
    yield unsafe("GNU link twice", "tar", tar(gnu_long(b"a", b"K"), gnu_long(b"b", b"K"), file), "extended-header-twice")
    yield unsafe("GNU name and PAX", "tar", tar(gnu_long(b"a"), pax((b"path", b"b")), file), "extended-header-twice")
    yield unsafe("PAX and GNU name", "tar", tar(pax((b"mtime", b"1")), gnu_long(b"b"), file), "extended-header-twice")
    yield unsafe("GNU name not UTF-8", "tar", tar(gnu_long(b"\xff"), file), "not-unicode")
    yield unsafe("GNU name empty", "tar", tar(gnu_long(b""), file), "empty-name")
    yield unsafe("GNU link outside", "tar", tar(gnu_long(b"../" * 50, b"K"), symlink(b"l", b"f")), "symlink-outside")
    yield damaged("GNU name, then the end", "tar", tar(gnu_long(b"a")))


def ends() -> Iterator[Case]:
    file = entry(b"f", b"content")
    yield damaged("nothing at all", "tar", b"")
    yield damaged("no end mark", "tar", tar(file, end=b""))
    yield damaged("half an end mark", "tar", tar(file, end=bytes(BLOCK)))
    yield damaged("cut in a header", "tar", file[:300])
    yield damaged("cut in content", "tar", file[: BLOCK + 3])
    yield damaged("cut in padding", "tar", file[: BLOCK + 100])
    yield damaged("cut in a PAX header", "tar", pax((b"path", b"a"))[: BLOCK + 5])
    yield unsafe("member behind one zero block", "tar", tar(file, bytes(BLOCK), entry(b"hidden")), "trailing-data")
    yield unsafe("member behind the end", "tar", tar(file) + tar(entry(b"hidden")), "trailing-data")
    yield unsafe("text behind the end", "tar", tar(file) + b"hidden", "trailing-data")
    yield unsafe("text far behind the end", "tar", tar(file) + bytes(600_000) + b"hidden", "trailing-data")
    yield over("zeros without end", "tar", tar(file) + bytes(3 << 20), "padding")
    yield over("zeros without end, compressed", "tar.gz", gzip.compress(tar(file) + bytes(50 << 20)), "padding")


def streams() -> Iterator[Case]:
    file = tar(entry(b"f", b"content"))
    packers = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
    for format, packer in packers.items():
        data = packer(file)
        yield damaged("cut in half", format, data[: len(data) // 2])
        yield damaged("cut by one byte", format, data[:-1])
        yield damaged("another format", format, file)
        yield damaged("damaged inside", format, data[: len(data) // 2] + bytes(4) + data[len(data) // 2 + 4 :])
        yield unsafe("text behind", format, data + b"hidden", "trailing-data")
        yield unsafe("zeros behind", format, data + bytes(512), "trailing-data")
        yield unsafe("tar in a second stream", format, data + packer(tar(entry(b"hidden"))), "trailing-data")
        yield damaged("second stream cut", format, packer(file[:700]) + packer(file[700:])[:-5])
        yield damaged("empty stream", format, packer(b""))
    good = gzip.compress(file)
    yield damaged("gzip checksum wrong", "tar.gz", good[:-8] + b"\0\0\0\0" + good[-4:])
    yield damaged("gzip length wrong", "tar.gz", good[:-4] + b"\0\0\0\1")
    yield damaged("gzip of another method", "tar.gz", good[:2] + b"\x07" + good[3:])
    greedy = bytearray(lzma.compress(file))
    greedy[16] = 40  # a dictionary of 4 GiB
    length = (greedy[12] + 1) * 4
    greedy[12 + length - 4 : 12 + length] = zlib.crc32(greedy[12 : 12 + length - 4]).to_bytes(4, "little")
    yield over("xz wants 4 GiB of memory", "tar.xz", bytes(greedy), "memory")


def budgets() -> Iterator[Case]:
    greedy = gzip.compress(tar(header(b"x", 200 << 20, b"x"), bytes(200 << 20), entry(b"f")))
    yield over("PAX header of 200 MiB in 200 KB", "tar.gz", greedy, "header-bytes")
    zeros = gzip.compress(tar(entry(b"zeros", bytes(40 << 20))))
    yield over("bomb of one file", "tar.gz", zeros, "ratio")
    yield over("bomb of many files", "tar.gz", gzip.compress(tar(*(entry(b"%d" % n, bytes(1 << 20)) for n in range(40)))), "ratio")
    yield over("bomb in bzip2", "tar.bz2", bz2.compress(tar(entry(b"zeros", bytes(40 << 20)))), "ratio")
    yield over("one file too large", "tar", tar(entry(b"f", bytes(2000))), "member-bytes", Limits(member_bytes=1999))
    yield over(
        "files too large together",
        "tar",
        tar(*(entry(b"%d" % n, bytes(1000)) for n in range(3))),
        "expanded-bytes",
        Limits(expanded_bytes=2999),
    )
    yield over("too many members", "tar", tar(*(entry(b"%d" % n) for n in range(11))), "members", Limits(members=10))
    yield over(
        "too many directories nobody lists", "tar", tar(*(entry(b"%d/a/b/c/f" % n) for n in range(9))), "members", Limits(members=30)
    )
    yield over("archive too large", "tar", tar(entry(b"f")), "compressed-bytes", Limits(compressed_bytes=1024))
    yield over("PAX header too large", "tar", tar(pax((b"comment", b"x" * 9000)), entry(b"f")), "header-bytes", Limits(header_bytes=9000))
    yield over("PAX header of 8 GiB", "tar", tar(header(b"x", octal((8 << 30) - 1)[:12], b"x")), "header-bytes")
    yield over("GNU name of 1 TiB", "tar", tar(header(b"x", b"\x80" + (1 << 40).to_bytes(11, "big"), b"L", magic=GNU)), "header-bytes")
    yield over("names too large together", "tar", tar(*(entry(b"%099d" % n) for n in range(20))), "header-bytes", Limits(header_bytes=1000))
    many = b"".join(pax((b"comment", b"%d" % n), kind=b"g") for n in range(40))
    yield over("global headers without end", "tar", tar(many, entry(b"f")), "header-bytes", Limits(header_bytes=20_000))
    yield over(
        "compressed global headers without end",
        "tar.gz",
        gzip.compress(tar(pax((b"comment", b"x" * (1 << 20)), kind=b"g") * 20)),
        "header-bytes",
        Limits(header_bytes=1 << 22),
    )
