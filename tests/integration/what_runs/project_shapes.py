"""Projects of every shape. Each has ``main.py`` (or what it is called), which says what it imports: here, or as a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = '''
import sys

MODULES = {modules!r}


def probe():
    """Where each module comes from, and the distributions that are there."""
    import importlib, importlib.metadata, os
    files = {{}}
    for name in MODULES:
        path = importlib.import_module(name).__file__
        files[name] = path.partition("/site-packages/")[2] and "site-packages/" + path.partition("/site-packages/")[2] or path
    found = {{}}
    for one in importlib.metadata.distributions():
        found.setdefault(one.metadata["Name"].lower(), one.version)
    scripts = sorted(one.value for one in importlib.metadata.entry_points(group="shapes"))
    return files, found, scripts, sorted(os.listdir("."))


if __name__ == "__main__":
    import json
    if "--here" in sys.argv:
        print(json.dumps(probe()))
    else:
        from flamepy import Runner
        with Runner("shape", **json.loads(sys.argv[1] if len(sys.argv) > 1 else "{{}}")) as rr:
            print(json.dumps(rr.service(probe)().get()))
'''


@dataclass
class Shape:
    """Attributes:
    files: path → text. modules: what the program imports. program: its path. lock: whether ``uv lock`` is run first.
    reference: how the same program runs in the checkout: ``project`` (uv run), ``script``, ``requirements``, ``editable``.
    """

    files: dict[str, str]
    modules: tuple[str, ...]
    program: str = "main.py"
    root: str = "."
    where: str = ""
    lock: bool = False
    head: str = ""
    reference: str = "project"
    private: tuple[str, ...] = ()
    with_pip: bool = True
    extra: dict[str, str] = field(default_factory=dict)

    def write(self, place: Path) -> Path:
        for name, text in {**self.files, self.program: self.head + PROGRAM.format(modules=self.modules)}.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return place / self.root


def package(
    name: str, version: str, *, dependencies: str = "", rest: str = "", build: str = "hatchling", backend: str = "hatchling.build"
) -> str:
    system = f'[build-system]\nrequires = ["{build}"]\nbuild-backend = "{backend}"\n' if build else ""
    return (
        f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = ">=3.10"\ndependencies = [{dependencies}]\n{rest}\n{system}'
    )


POINTS = '[project.entry-points.shapes]\nrun = "srcproj:run"\n'
HATCH_DYNAMIC = package("hatchproj", "0", dependencies='"alpha<2"').replace('version = "0"', 'dynamic = ["version"]')

BUILT = """
[project]
name = "builtproj"
version = "1"
requires-python = ">=3.10"
dynamic = ["dependencies"]
{rest}
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
packages = ["builtproj"]
[tool.setuptools.dynamic]
dependencies = {{file = ["requirements.txt"]}}
"""

SHAPES = {
    "flat": Shape({"pyproject.toml": package("flatproj", "1", dependencies='"alpha<2"', build=""), "helper.py": ""}, ("helper", "alpha")),
    "src": Shape(
        {
            "pyproject.toml": package("srcproj", "1.2", dependencies='"beta"', rest=POINTS),
            "src/srcproj/__init__.py": "",
            "src/srcproj/a.py": "",
        },
        ("srcproj.a", "beta", "alpha"),
        private=("srcproj",),
    ),
    "group": Shape({"pyproject.toml": package("flatproj", "1", build="", rest='[dependency-groups]\ndev = ["gamma"]\n')}, ("gamma",)),
    "single script": Shape({"other.py": ""}, ("other",), reference="script"),
    "two scripts": Shape(
        {"second.py": '# /// script\n# dependencies = ["alpha==1.0"]\n# ///\n', "beside.py": ""},
        ("alpha", "beside"),
        head='# /// script\n# dependencies = ["alpha==1.5", "gamma"]\n# ///\n',
        reference="script",
    ),
    "requirements": Shape(
        {
            "requirements.txt": "-r requirements/base.txt\n-c requirements/pins.txt\n",
            "requirements/base.txt": "alpha\n./liba\n",
            "requirements/pins.txt": "alpha==1.5\n",
            "liba/pyproject.toml": package("liba", "0.1"),
            "liba/liba.py": "",
            "tool.py": "",
        },
        ("alpha", "liba", "tool"),
        reference="requirements",
        private=("liba",),
    ),
    "workspace": Shape(
        {
            "pyproject.toml": package("rootproj", "1", build="", rest='[tool.uv.workspace]\nmembers = ["apps/*", "libs/*"]\n'),
            "apps/web/pyproject.toml": package(
                "web", "0.3", dependencies='"liba", "gamma"', rest="[tool.uv.sources]\nliba = {workspace = true}\n"
            ),
            "apps/web/src/web/__init__.py": "",
            "libs/a/pyproject.toml": package(
                "liba", "0.5", dependencies='"alpha<2", "libb"', rest="[tool.uv.sources]\nlibb = {workspace = true}\n"
            ),
            "libs/a/src/liba/__init__.py": "",
            "libs/b/pyproject.toml": package("libb", "0.7"),
            "libs/b/src/libb/__init__.py": "",
        },
        ("web", "liba", "libb", "alpha", "gamma"),
        program="apps/web/main.py",
        root="apps/web",
        private=("liba", "libb", "web", "rootproj"),
    ),
    "path sources": Shape(
        {
            "proj/pyproject.toml": package(
                "flatproj",
                "1",
                build="",
                dependencies='"liba", "libb"',
                rest='[tool.uv.sources]\nliba = {path = "../liba", editable = true}\nlibb = {path = "../libb"}\n',
            ),
            "liba/pyproject.toml": package("liba", "0.5", dependencies='"alpha<2"'),
            "liba/src/liba/__init__.py": "",
            "libb/pyproject.toml": package("libb", "0.6", dependencies='"gamma"'),
            "libb/src/libb/__init__.py": "",
        },
        ("liba", "libb", "alpha", "gamma"),
        program="proj/main.py",
        root="proj",
        private=("liba", "libb"),
    ),
    "locked": Shape(
        {
            "pyproject.toml": package(
                "lockproj", "1", dependencies='"beta"', rest='[tool.uv]\nconstraint-dependencies = ["alpha<1.2"]\n', build=""
            )
        },
        ("alpha", "beta"),
        lock=True,
        with_pip=False,
    ),
    "locked workspace": Shape(
        {
            "pyproject.toml": package(
                "rootproj",
                "1",
                dependencies='"liba"',
                rest='[tool.uv.workspace]\nmembers = ["liba"]\n[tool.uv.sources]\nliba = {workspace = true}\n',
                build="",
            ),
            "liba/pyproject.toml": package("liba", "0.5", dependencies='"alpha<2"'),
            "liba/src/liba/__init__.py": "",
        },
        ("liba", "alpha"),
        lock=True,
        private=("liba",),
        with_pip=False,
    ),
    "built, with a group": Shape(
        {
            "pyproject.toml": BUILT.format(rest='[dependency-groups]\ndev = ["gamma"]\n'),
            "requirements.txt": "alpha<2\n",
            "builtproj/__init__.py": "",
        },
        ("builtproj", "alpha", "gamma"),
        private=("builtproj",),
        with_pip=False,
    ),
    "built and locked": Shape(
        {
            "app/pyproject.toml": BUILT.format(
                rest='[dependency-groups]\ndev = ["gamma"]\n[tool.uv]\nconstraint-dependencies = ["alpha<1.2"]\n'
                '[tool.uv.sources]\nliba = {path = "../liba"}\n'
            ),
            "app/requirements.txt": "beta\nliba\n",
            "app/builtproj/__init__.py": "",
            "liba/pyproject.toml": package("liba", "0.5", dependencies='"alpha"'),
            "liba/src/liba/__init__.py": "",
        },
        ("builtproj", "liba", "alpha", "beta", "gamma"),
        program="app/main.py",
        root="app",
        lock=True,
        private=("builtproj", "liba"),
        with_pip=False,
    ),
    "hatch": Shape(
        {
            "pyproject.toml": HATCH_DYNAMIC
            + '[tool.hatch.version]\npath = "lib/hatchproj/__init__.py"\n[tool.hatch.build.targets.wheel]\npackages = ["lib/hatchproj"]\n',
            "lib/hatchproj/__init__.py": '__version__ = "3.1"\n',
        },
        ("hatchproj", "alpha"),
        private=("hatchproj",),
    ),
    "pdm": Shape(
        {
            "pyproject.toml": package("pdmproj", "0.2", dependencies='"alpha==1.5"', build="pdm-backend", backend="pdm.backend")
            + "[tool.pdm]\ndistribution = true\n",
            "src/pdmproj/__init__.py": "",
        },
        ("pdmproj", "alpha"),
        private=("pdmproj",),
    ),
    "poetry": Shape(
        {
            "pyproject.toml": '[tool.poetry]\nname = "poetryproj"\nversion = "0.9"\ndescription = ""\nauthors = []\n'
            '[tool.poetry.dependencies]\npython = ">=3.10"\nalpha = "^1.0"\n'
            '[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n',
            "poetryproj/__init__.py": "",
            "notes.py": "",
        },
        ("poetryproj", "alpha", "notes"),
        reference="editable",
        private=("poetryproj",),
    ),
    "poetry with a path": Shape(
        {
            "app/pyproject.toml": '[tool.poetry]\nname = "poetryproj"\nversion = "0.9"\ndescription = ""\nauthors = []\n'
            '[tool.poetry.dependencies]\npython = ">=3.10"\nliba = {path = "../liba"}\n'
            '[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n',
            "app/poetryproj/__init__.py": "",
            "liba/pyproject.toml": package("liba", "0.5", dependencies='"alpha<2"'),
            "liba/src/liba/__init__.py": "",
        },
        ("poetryproj", "liba", "alpha"),
        program="app/main.py",
        root="app",
        reference="editable",
        private=("poetryproj", "liba"),
    ),
    "setup.py": Shape(
        {
            "setup.py": "from setuptools import setup\n"
            'setup(name="oldproj", version="4", packages=["oldproj"], install_requires=["alpha<2"])\n',
            "oldproj/__init__.py": "",
            "oldproj/data.txt": "read beside the module, and declared nowhere",
        },
        ("oldproj", "alpha"),
        reference="editable",
        private=("oldproj",),
    ),
    "notebook directory": Shape(
        {
            "pyproject.toml": package("srcproj", "1.2", dependencies='"alpha==1.0"', rest=POINTS),
            "src/srcproj/__init__.py": "",
            "notebooks/cells.py": "",
            "notebooks/data.csv": "",
        },
        ("srcproj", "cells", "alpha"),
        program="notebooks/main.py",
        where="notebooks",
        private=("srcproj",),
    ),
    "from the parent": Shape(
        {
            "app/pyproject.toml": package("flatproj", "1", dependencies='"alpha==1.0"', build=""),
            "app/helper.py": "",
            "requirements.txt": "gamma\n",
        },
        ("helper", "alpha"),
        program="app/main.py",
        root="app",
        where="..",
    ),
    "from a subdirectory": Shape(
        {"pyproject.toml": package("flatproj", "1", dependencies='"alpha==1.0"', build=""), "deep/er/data.txt": "", "helper.py": ""},
        ("helper", "alpha"),
        where="deep/er",
    ),
}
