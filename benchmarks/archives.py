"""Archives: ours beside GNU tar and the standard library's tarfile, interleaved.

    python benchmarks/archives.py [--files 5000] [--rounds 7] [--at DIRECTORY]

Trees that were unpacked are kept until the end: creating files on ext4 is slow for minutes after many were deleted.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from flame_archive_tar.tar import TarGz

from flame_host._packages.unpack.parent import unpack
from flame_host.api import Limits, Member


def make_tree(count: int) -> list[Member]:
    """Small Python modules, as a project has them."""
    members = []
    for number in range(count):
        text = "".join(f"def function_{line}(x):\n    return x * {number * line * 7919 % 1000}\n" for line in range(30)).encode()
        members.append(Member(f"project/package{number // 50}/module{number}.py", size=len(text), content=text))
    return members


def pack_ours(members: list[Member], path: Path) -> None:
    with path.open("wb") as target:
        TarGz().write(members, target)


def pack_tarfile(members: list[Member], path: Path) -> None:
    with tarfile.open(path, "w:gz", compresslevel=6, format=tarfile.USTAR_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size = member.size
            assert isinstance(member.content, bytes)
            archive.addfile(info, io.BytesIO(member.content))


def unpack_gnu(archive: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(["tar", "xzf", archive, "-C", target], check=True)


def unpack_tarfile(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as source:
        if hasattr(tarfile, "data_filter"):
            source.extractall(target, filter="data")
        else:
            source.extractall(target)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def report(title: str, figures: dict[str, list[float]], base: str) -> None:
    """Medians, and the median of the ratios of neighbours in time: other load then counts on both sides."""
    print(title)
    for name, times in figures.items():
        ratio = median(one / other for one, other in zip(times, figures[base], strict=True))
        print(f"  {name:<12} {median(times) * 1000:8.1f} ms   {ratio:5.2f} x {base}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--at", type=Path, default=Path(tempfile.gettempdir()), help="where to unpack")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    root = Path(tempfile.mkdtemp(prefix="benchmark-archives-", dir=options.at))
    try:
        members = make_tree(options.files)
        packing: dict[str, list[float]] = {"ours": [], "tarfile -6": []}
        for _ in range(options.rounds):
            packing["ours"].append(timed(lambda: pack_ours(members, root / "ours.tar.gz")))
            packing["tarfile -6"].append(timed(lambda: pack_tarfile(members, root / "tarfile.tar.gz")))
        sizes = {name: (root / f"{name}.tar.gz").stat().st_size for name in ("ours", "tarfile")}
        report(f"packing {options.files} files ({sizes['ours']} bytes, tarfile {sizes['tarfile']})", packing, "ours")
        archive = root / "ours.tar.gz"
        ways: dict[str, Callable[[Path], object]] = {
            "GNU tar": lambda target: unpack_gnu(archive, target),
            "ours": lambda target: unpack(archive, target, TarGz(), Limits()),
            "tarfile": lambda target: unpack_tarfile(archive, target),
        }
        unpacking: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                took = timed(lambda way=way, target=root / f"{name}-{number}": way(target))  # type: ignore[misc]
                if number:  # the first round warms caches up
                    unpacking[name].append(took)
        report(f"unpacking {options.files} files, start of the child included", unpacking, "GNU tar")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
