"""Sound inputs for each target of `fuzz_targets`."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

from flame_host.api import ObjectRef, PackageRef, Payload, Plan
from flame_host.wire import bson
from flame_host.wire.envelope import CallOrder, Outcome, SessionOrder, encode_call, encode_outcome, encode_session
from flame_host.worker.runtime.channel import CALL, ERROR, RESULT, START, encode
from flame_host.worker.runtime.report import error_report


def frames() -> list[bytes]:
    plain = [encode(kind, n, b"data" * n, [b"buffer"] * n, (), b"method")[0] for n, kind in enumerate((CALL, RESULT, ERROR, START))]
    with_references = encode(CALL, 9, b"data", [b"buffer"], [("msgpack/1", b"x", (b"y",))], b"")[0]
    return [*map(bytes, plain), bytes(with_references), b"".join(map(bytes, plain))]


def tars() -> list[bytes]:
    made = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
            for name, kind in (("a", tarfile.REGTYPE), ("d", tarfile.DIRTYPE), ("d/l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)):
                member = tarfile.TarInfo(name if format == tarfile.USTAR_FORMAT or kind != tarfile.REGTYPE else "n" * 120)
                member.type, member.linkname = kind, "../d" if kind == tarfile.SYMTYPE else "a"
                member.size = 5 if kind == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(b"hello"))
        made.append(stream.getvalue())
    return [*made, gzip.compress(made[0]), bz2.compress(made[0]), lzma.compress(made[0])]


def zips() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for zip64 in (False, True):
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w", method) as archive:
                for name in ("a", "d/", "é/b"):
                    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) as member:
                        member.write(b"" if name == "d/" else b"hello")
            made.append(stream.getvalue())
    return made


def envelopes() -> list[bytes]:
    payload = Payload("msgpack/1", b"data", (b"buffer",))
    reference = ObjectRef("file:///x", "a/b/c", 1)
    package = PackageRef("file:///x.tar.gz", "ab" * 32, 10, "tar.gz")
    order = SessionOrder(payload, Plan(policy={"pickle": "deny"}), package=package, environments={"A": "b"})
    calls = [CallOrder(payload, "method", "", (reference, payload)), CallOrder(payload)]
    try:
        raise ValueError("told") from KeyError(1)
    except ValueError as error:
        report = error_report(error)
    made = [encode_session(order), *map(encode_call, calls), encode_outcome(Outcome(reference)), encode_outcome(Outcome(payload))]
    return [*made, bson.encode_reference(reference), report, outcome_text(report)]


def outcome_text(report: bytes) -> bytes:
    from flame_host.wire.outcomes import with_report

    return with_report("text", report).encode()


def manifests() -> list[bytes]:
    return [
        b'{"version": "1.0", "serializers": [{"format": "msgpack/1", "codec": "x"}], "policy": {"pickle": "deny"}, "endpoints": {"a": "b"},'
        b' "resources": {"a": {"functions": [{"name": "F", "methods": [{"name": "m"}]}]}}, "function_registry": {"F": "a"}}',
        b"current-cluster: a\nclusters:\n- name: a\n  endpoint: http://h\n"
        b"  cache: {endpoint: x, storage: y}\n  package: {storage: file:///x}\n",
        b"current-context: a\ncontexts:\n  a:\n    cluster: {endpoint: &e x, tls: {ca_file: *e}}\n"
        b"    runner: t\n    policy: {pickle: deny}\n",
        b"contexts:\n a\ncontexts:\n  a:\n    cluster: {endpoint: x}\n",  # a key twice, of two kinds: found once
        b"pickle=deny,builds=allow",
    ]


def requirements() -> list[bytes]:
    project = (
        b'[build-system]\nbuild-backend = "x"\n[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["a>=1"]\n'
        b'[project.optional-dependencies]\nb = ["c"]\n[dependency-groups]\nd = ["e", {include-group = "f"}]\nf = []\n'
        b'[tool.flame]\nextras = ["b"]\ngroups = ["d"]\n[tool.setuptools]\next-modules = []\n'
    )
    package = (
        b'[project]\nname = "x.y"\ndynamic = ["version"]\ndescription = "z"\nscripts = {a = "b:c"}\n'
        b'[project.entry-points.g]\nn = "m:o"\n[tool.pdm.version]\nsource = "file"\npath = "pyproject.toml"\n'
        b'[build-system]\nrequires = []\nbuild-backend = "x"\n[tool.uv.workspace]\nmembers = ["*"]\n[tool.uv.sources]\na = {path = "."}\n'
        b'[x]\n__version__ = "1.0"\n'
    )
    lines = b"a>=1 # why\n-r b.txt\n--constraint=c.txt\n-e .\nd @ https://h/d.whl\n\\\n--index-url x\n"
    script = b'# /// script\n# requires-python = ">=3.10"\n# dependencies = ["a"]\n# ///\nprint(1)\n'
    others = [b"\3[metadata]\nname = x\n", b"\4from setuptools import setup\nsetup()\n", b"\5Name: x\n"]
    return [
        b"\0" + project,
        b"\0" + package,
        b"\0" + package.replace(b'dynamic = ["version"]', b'version = "1"'),
        b"\0" + package.replace(b'name = "x.y"\ndynamic = ["version"]', b'version = "1"'),  # found without a name once
        b"\1" + lines,
        b"\2" + script,
        *others,
    ]
