"""Runs do not meet: not in files, not in bytecode, not in environments."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from local_index import PYTHON, run

TRAIN = """
import sys, time
from flamepy import Runner
from pathlib import Path


def edit(number):
    with open("state.txt", "a") as stream:
        stream.write(f"edited {number}\\n")
    Path(f"new-{number}.txt").write_text("new")
    return ""


def read(number):
    return Path("state.txt").read_text() + "".join(sorted(path.name for path in Path().glob("new-*")))


if __name__ == "__main__":
    with Runner("train") as rr:
        service = rr.service(edit if sys.argv[1] == "edit" else read)
        found = set(service.map(range(1000)))
        print(repr(sorted(found)))
"""


def project(place: Path, **files: str) -> Path:
    place.mkdir(exist_ok=True)
    for name, text in {"pyproject.toml": '[project]\nname = "train"\nversion = "1"\n', **files}.items():
        (place / name).write_text(text)
    return place


def test_two_programs_of_one_name_for_a_thousand_tasks_and_the_next_run(tmp_path: Path, installing: dict[str, str]) -> None:
    place = project(tmp_path / "train", **{"main.py": TRAIN, "state.txt": "as packed\n"})
    both = [
        subprocess.Popen([PYTHON, "main.py", what], cwd=place, env=installing, stdout=subprocess.PIPE, text=True)
        for what in ("edit", "read")
    ]
    edited, found = (program.communicate(timeout=100)[0] for program in both)
    assert [program.returncode for program in both] == [0, 0]
    assert found == "['as packed\\n']\n"
    assert edited == "['']\n"
    assert run([PYTHON, "main.py", "read"], place, installing) == "['as packed\\n']\n"
    assert (place / "state.txt").read_text() == "as packed\n"


POISON = """
import json, os, sys
from flamepy import Runner


def poison():
    import helper, alpha, py_compile, importlib.util
    for module in (helper, alpha):
        source = open(module.__file__).read()
        status = os.stat(module.__file__)
        bad = module.__name__ + "-bad.py"
        with open(bad, "w") as stream:
            stream.write(source.replace("1.0", "POISON").ljust(len(source)))
        os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
        target = importlib.util.cache_from_source(module.__file__)
        if os.path.exists(target):
            os.chmod(target, 0o644)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        compiled = compile(open(bad).read(), module.__file__, "exec")
        code = importlib._bootstrap_external._code_to_timestamp_pyc(compiled, int(status.st_mtime), status.st_size)
        with open(target, "wb") as stream:
            stream.write(code)
    return values()


def rewrite():
    import helper
    os.chmod(helper.__file__, 0o644)
    with open(helper.__file__, "a") as stream:
        stream.write("VALUE = 'POISON'\\n")


def values():
    import helper, alpha
    return [helper.VALUE, alpha.VERSION]


if __name__ == "__main__":
    with Runner("poison") as rr:
        print(json.dumps(rr.service({"poison": poison, "rewrite": rewrite, "values": values}[sys.argv[1]])().get()))
"""


def test_poisoned_bytecode_and_sources_do_not_run(tmp_path: Path, installing: dict[str, str]) -> None:
    place = project(tmp_path / "poison", **{"main.py": POISON, "helper.py": "VALUE = '1.0'\n", "requirements.txt": "alpha==1.0\n"})
    (place / "pyproject.toml").unlink()
    for what in ("values", "poison", "values", "rewrite", "values"):
        done = subprocess.run(
            [PYTHON, "main.py", what], cwd=place, env=installing, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        if what == "values":
            assert json.loads(done.stdout) == ["1.0", "1.0"]
    assert "was changed since it was made" in done.stderr


LARGE = """
import os
from flamepy import Runner


def append(name):
    with open(name, "ab") as stream:
        stream.write(b"more")
    return os.path.getsize(name), os.path.getsize("other.bin")


def sizes():
    return os.path.getsize("data.bin"), os.path.getsize("other.bin")


if __name__ == "__main__":
    with Runner("large") as rr:
        print(rr.service(sizes)().get(), rr.service(append)("data.bin").get(), rr.service(sizes)().get())
"""


def test_large_files_are_kept_once_and_written_to_as_copies(tmp_path: Path, installing: dict[str, str]) -> None:
    root = tmp_path / "root"
    environment = {**installing, "FLAME_HOST_ROOT": str(root)}
    place = project(tmp_path / "large", **{"main.py": LARGE})
    for name in ("data.bin", "other.bin"):
        (place / name).write_bytes(name.encode() * (2 << 20))
    size, other = 8 * (2 << 20), 9 * (2 << 20)
    expected = f"({size}, {other}) ({size + 4}, {other}) ({size + 4}, {other})\n"
    assert run([PYTHON, "main.py"], place, environment) == expected
    before = _bytes_below(root / "files")
    (place / "main.py").write_text(LARGE + "# edited\n")
    assert run([PYTHON, "main.py"], place, environment) == expected, "what a task wrote does not reach the next run"
    assert _bytes_below(root / "files") - before < 10_000
    assert before < size + other + 100_000


def _bytes_below(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
