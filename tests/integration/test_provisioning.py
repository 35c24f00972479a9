"""From a package to an environment with the real installers: what goes wrong first, then what is shared and what is not."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flame_host import Host
from flame_host.api import (
    Application,
    ConfigError,
    DigestMismatchError,
    InstallError,
    InterpreterNotFoundError,
    Lease,
    Member,
    MemberKind,
    PackageNotFoundError,
    PackageRef,
    Plan,
    UnsafeArchiveError,
)
from flame_host.testing.installers import make_wheel

PYPROJECT = '[project]\nname = "app"\nversion = "1"\ndependencies = [{}]\n'


@pytest.fixture
def host(tmp_path: Path, wheelhouse: Path) -> Host:
    return Host(root=tmp_path / "root", wheelhouse=str(wheelhouse), offline=True)


def publish(tmp_path: Path, host: Host, files: dict[str, str | bytes], *, archiver: str = "tar.gz") -> PackageRef:
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    provider = host.catalog.archiver(archiver)
    path = tmp_path / f"package{provider.suffixes[0]}"
    with path.open("wb") as target:
        provider.write([Member(name, MemberKind.FILE, len(body), content=body) for name, body in sorted(contents.items())], target)
    return publish_file(tmp_path, host, path)


def publish_file(tmp_path: Path, host: Host, path: Path) -> PackageRef:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    url = host.catalog.store("file").publish(path, (tmp_path / "store" / digest[:8]).as_uri(), name=path.name, digest=digest)
    return PackageRef(url, digest, path.stat().st_size, "")


def ask(lease: Lease, code: str) -> str:
    paths = [str(path) for path in lease.environment.paths]
    program = f"import sys; sys.path[:0] = {paths!r}\n{code}"
    return subprocess.run([lease.environment.python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.strip()


VERSION = "import flametestdep; print(flametestdep.VERSION)"


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_a_missing_dependency_says_which_and_leaves_nothing(tmp_path: Path, host: Host):
    package = publish(tmp_path, host, {"pyproject.toml": PYPROJECT.format('"no-such-package-of-ours"')})
    with pytest.raises(InstallError, match="no-such-package-of-ours") as caught:
        host.provision(Application("app", package=package))
    assert (caught.value.stage, caught.value.provider, caught.value.application) == ("install", "uv", "app")
    assert "wheelhouse" in caught.value.hint
    assert caught.value.log is not None
    assert caught.value.log.is_file()
    assert list((tmp_path / "root" / "envs").iterdir()) == []


def test_a_broken_pyproject_leaves_no_tree(tmp_path: Path, host: Host):
    package = publish(tmp_path, host, {"pyproject.toml": "[project\n"})
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        host.provision(Application("app", package=package))
    assert list((tmp_path / "root" / "trees").iterdir()) == []


def test_a_package_that_was_changed_in_the_store_is_discarded(tmp_path: Path, host: Host):
    package = publish(tmp_path, host, {"m.py": "1\n"})
    Path(package.url.removeprefix("file://")).write_bytes(b"something else entirely")
    with pytest.raises(DigestMismatchError) as caught:
        host.provision(Application("app", package=package))
    assert caught.value.stage == "verify"
    assert list((tmp_path / "root" / "trees").iterdir()) == []


def test_a_package_that_is_not_there_is_named(tmp_path: Path, host: Host):
    package = PackageRef((tmp_path / "none.tar.gz").as_uri(), "0" * 64, 1, "tar.gz")
    with pytest.raises(PackageNotFoundError, match=r"none\.tar\.gz"):
        host.provision(Application("app", package=package))


def test_an_unsafe_archive_leaves_nothing(tmp_path: Path, host: Host):
    package = publish(tmp_path, host, {"m.py": "1\n", "../outside.py": "1\n"})
    with pytest.raises(UnsafeArchiveError) as caught:
        host.provision(Application("app", package=package))
    assert caught.value.application == "app"
    assert not list(tmp_path.rglob("outside.py"))
    assert [path.name for path in (tmp_path / "root" / "trees").iterdir()] == []


def test_a_project_for_another_python_says_what_to_choose(tmp_path: Path, host: Host):
    text = PYPROJECT.format("") + 'requires-python = ">=3.99"\n'
    with pytest.raises(InterpreterNotFoundError, match=r"needs Python >=3\.99"):
        host.provision(Application("app", package=publish(tmp_path, host, {"pyproject.toml": text})))


# ---------------------------------------------------------------------------------------------------- killed


@pytest.mark.parametrize("moment", ["install", "unpack"])
def test_a_provisioner_that_is_killed_is_repaired_by_the_next(tmp_path: Path, host: Host, wheelhouse: Path, moment: str):
    package = publish(tmp_path, host, {"pyproject.toml": PYPROJECT.format('"flametestdep==1.0"')})
    script = textwrap.dedent(
        f"""
        import os, signal, sys, types
        from flame_host import Host
        from flame_host.api import Application, PackageRef, hookimpl

        class Killer:
            name = "killer"
            def observe(self, events):
                if any(event.kind == "provision.{moment}" for event in events):
                    os.kill(os.getpid(), signal.SIGKILL)

        plugin = types.ModuleType("killer")
        plugin.flame_observers = hookimpl(lambda: [Killer()])
        plugin.flame_observers.__name__ = "flame_observers"
        host = Host(root={str(tmp_path / "root")!r}, wheelhouse={str(wheelhouse)!r}, offline=True, plugins=[("killer", plugin)])
        host._observers.add = lambda event: Killer().observe([event])
        host.provision(Application("app", package=PackageRef({package.url!r}, {package.digest!r}, {package.size}, "tar.gz")))
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    lease = host.provision(Application("app", package=package))
    assert ask(lease, VERSION) == "1.0"


def test_eight_processes_that_provision_at_once_install_once(tmp_path: Path, host: Host, wheelhouse: Path):
    package = publish(tmp_path, host, {"pyproject.toml": PYPROJECT.format('"flametestdep==1.0"')})
    script = textwrap.dedent(
        f"""
        from flame_host import Host
        from flame_host.api import Application, PackageRef
        host = Host(root={str(tmp_path / "root")!r}, wheelhouse={str(wheelhouse)!r}, offline=True)
        package = PackageRef({package.url!r}, {package.digest!r}, {package.size}, "tar.gz")
        lease = host.provision(Application("app", package=package))
        print(lease.environment.python)
        """
    )
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    pythons = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(pythons) == 1
    assert [process.returncode for process in processes] == [0] * 8
    (log,) = (tmp_path / "root" / "logs" / "install").iterdir()
    assert log.read_text().count("$ ") == 2  # one `uv venv`, one `uv pip install`


# ---------------------------------------------------------------------------------------------------- shared and apart


def test_a_change_of_the_code_finds_the_environment_it_had(tmp_path: Path, host: Host):
    first = host.provision(
        Application("app", package=publish(tmp_path, host, {"pyproject.toml": PYPROJECT.format('"flametestdep==1.0"'), "m.py": "X = 1\n"}))
    )
    second = host.provision(
        Application("app", package=publish(tmp_path, host, {"pyproject.toml": PYPROJECT.format('"flametestdep==1.0"'), "m.py": "X = 2\n"}))
    )
    assert first.environment.python == second.environment.python
    assert (ask(first, "import m; print(m.X)"), ask(second, "import m; print(m.X)")) == ("1", "2")


def test_conflicting_versions_live_side_by_side(tmp_path: Path, host: Host):
    leases = [host.provision(Application("app", dependencies=(f"flametestdep=={version}",))) for version in ("1.0", "2.0")]
    assert [ask(lease, VERSION) for lease in leases] == ["1.0", "2.0"]


def test_an_environment_in_use_is_not_collected(tmp_path: Path, host: Host):
    from flame_host._packages.directories import ContentStore

    lease = host.provision(Application("app", dependencies=("flametestdep==1.0",)))
    assert ContentStore(host.root).prune(float("inf")) == []
    assert ask(lease, VERSION) == "1.0"
    lease.release()
    assert len(ContentStore(host.root).prune(float("inf"))) == 1


def test_a_warm_start_starts_no_process(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch):
    application = Application("app", package=publish(tmp_path, host, {"pyproject.toml": PYPROJECT.format('"flametestdep==1.0"')}))
    host.provision(application).release()
    monkeypatch.setenv("PATH", "")
    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.fork", "os.posix_spawn") else None)
    host.provision(application).release()
    assert started == []


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_interpreter_is_chosen_by_its_version(tmp_path: Path, host: Host, version: str, installer: str):
    if version == "{}.{}".format(*sys.version_info):
        pytest.skip("that is this interpreter")
    application = Application("app", python_version=version, plan=Plan(installer=installer))
    try:
        lease = host.provision(application)
    except InterpreterNotFoundError as error:
        pytest.skip(f"not on this machine: {error}")
    assert lease.environment.python_version == version
    assert ask(lease, "print('%d.%d' % sys.version_info[:2])") == version


# ---------------------------------------------------------------------------------------------------- kinds of projects


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_project_with_a_setup_py_is_really_built(tmp_path: Path, wheelhouse: Path, installer: str):
    host = Host(root=tmp_path / "root")  # its build needs setuptools from the index
    package = publish(
        tmp_path,
        host,
        {
            "setup.py": "from setuptools import setup\nsetup(name='built', version='1', py_modules=['built'])\n",
            "built.py": "import importlib.metadata\nVERSION = importlib.metadata.version('built')\n",
        },
    )
    lease = host.provision(Application("app", package=package, plan=Plan(installer=installer)))
    assert ask(lease, "import built; print(built.VERSION)") == "1"
    tree = lease.environment.tree
    assert tree is not None
    there = {path.name for path in tree.iterdir()} - {"__pycache__"}  # which the import above wrote, being root
    assert there == {"built.py", "setup.py"}


def test_a_wheel_is_a_package(tmp_path: Path, host: Host):
    wheel = make_wheel(tmp_path / "made", "wheelapp", "3.0", requires=("flametestdep<2",))
    lease = host.provision(Application("app", package=publish_file(tmp_path, host, wheel)))
    assert ask(lease, "import wheelapp, flametestdep; print(wheelapp.VERSION, flametestdep.VERSION)") == "3.0 1.0"


def test_a_requirements_file_a_script_and_a_directory_in_an_archive_are_projects(tmp_path: Path, host: Host):
    script = '# /// script\n# dependencies = ["flametestdep==2.0"]\n# ///\nX = 1\n'
    for files, version in (
        ({"requirements.txt": "flametestdep==1.0\n", "m.py": ""}, "1.0"),
        ({"main.py": script}, "2.0"),
        ({"my-app/pyproject.toml": PYPROJECT.format('"flametestdep==2.0"'), "my-app/src/m/__init__.py": ""}, "2.0"),
    ):
        lease = host.provision(Application("app", package=publish(tmp_path, host, files)))
        assert ask(lease, VERSION) == version


@pytest.mark.parametrize("archiver", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_every_archive_format_gives_the_same_environment(tmp_path: Path, host: Host, archiver: str):
    files: dict[str, str | bytes] = {"pyproject.toml": PYPROJECT.format('"flametestdep==1.0"'), "m.py": "X = 1\n"}
    lease = host.provision(Application("app", package=publish(tmp_path, host, files, archiver=archiver)))
    assert ask(lease, "import m; print(m.X)") == "1"


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_dependency_comes_from_the_index(tmp_path: Path, installer: str):
    host = Host(root=tmp_path / "root")
    lease = host.provision(Application("app", dependencies=("six==1.16.0",), plan=Plan(installer=installer)))
    assert ask(lease, "import six; print(six.__version__)") == "1.16.0"


def test_a_package_without_a_digest_is_named_by_its_content(tmp_path: Path, host: Host):
    package = publish(tmp_path, host, {"m.py": "X = 1\n"})
    unknown = PackageRef(package.url, "", 0, "")
    assert host.provision(Application("app", package=unknown)).environment.tree is not None
