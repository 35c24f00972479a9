"""Coverage-guided fuzzing by atheris: ``python tests/property/fuzz.py TARGET [CPU seconds]``; needs ``pip install 'flame-host[fuzz]'``.

It begins with the inputs kept in ``corpus/TARGET.tar.gz``, and keeps there what it finds that reaches something new.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
sys.path.insert(0, str(HERE))


def main(name: str, seconds: float) -> int:
    with tempfile.TemporaryDirectory(prefix="flame-fuzz-") as directory:
        given = Path(directory, "given")
        CORPUS.mkdir(exist_ok=True)
        given.mkdir()
        load(name, given)
        environment = {**os.environ, "FLAME_FUZZ": name}
        order = [sys.executable, __file__, name]
        options = ["-rss_limit_mb=2500", "-timeout=60", "-max_len=20000", f"-artifact_prefix={CORPUS}/finding-{name}-"]
        # libFuzzer counts the seconds of the clock, of which a busy machine gives it only some.
        code, left = 0, seconds
        while code == 0 and left > 1:
            code = subprocess.run([*order, *options, f"-max_total_time={int(left)}", str(given)], env=environment, check=False).returncode
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            left = seconds - used.ru_utime - used.ru_stime
        save(name, given)
        print(f"{name}: {seconds - left:.0f} s of CPU, ended with {code}", flush=True)
        return code


def load(name: str, directory: Path) -> None:
    from fuzz_targets import seeds

    for number, data in enumerate([*seeds(name), *inputs(name)]):
        (directory / f"{number:05d}").write_bytes(data)


def inputs(name: str) -> list[bytes]:
    """What is kept."""
    path = CORPUS / f"{name}.tar.gz"
    if not path.is_file():
        return []
    with tarfile.open(path) as tar:
        return [file.read() for member in tar if (file := tar.extractfile(member)) is not None]


def save(name: str, directory: Path) -> None:
    CORPUS.mkdir(exist_ok=True)
    contents = sorted({path.read_bytes() for path in directory.iterdir()}, key=lambda data: (len(data), data))
    with tarfile.open(CORPUS / f"{name}.tar.gz", "w:gz") as tar:
        for number, data in enumerate(contents):
            member = tarfile.TarInfo(f"{number:05d}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def fuzz() -> None:
    """In a process of libFuzzer's, which never returns."""
    logging.disable(logging.CRITICAL)
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["flame_host", "flame_archive_tar", "flame_archive_zip", "flamepy", "fuzz_targets"]):
        from fuzz_targets import TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[os.environ["FLAME_FUZZ"]])
    atheris.Fuzz()


if __name__ == "__main__":
    if os.environ.get("FLAME_FUZZ"):
        fuzz()
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 600))
