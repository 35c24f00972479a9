"""The contract of installers, as tests. Offline and fast: the wheels they install are made here."""

from __future__ import annotations

import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from flame_host.api import Installer, InstallError, InstallRequest, InterpreterNotFoundError, LocalProject, Requirements


def make_wheel(directory: Path, name: str, version: str, *, requires: tuple[str, ...] = ()) -> Path:
    """A pure wheel with one module, ``<name>.py``, that knows its ``VERSION``."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: flame-host\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


class InstallerContract:
    """Inherit and provide ``provider``::

    class TestMine(InstallerContract):
        @pytest.fixture
        def provider(self):
            return MyInstaller()
    """

    @pytest.fixture
    def provider(self) -> Installer:
        raise NotImplementedError("provide the installer to be tested")

    @pytest.fixture
    def request_for(self, tmp_path: Path, provider: Installer) -> InstallRequest:
        import sys

        wheels = tmp_path / "wheels"
        for version in ("1.0", "2.0"):
            make_wheel(wheels, "contractdep", version)
        make_wheel(wheels, "contractapp", "1.0", requires=("contractdep<2",))
        target = tmp_path / "environment"
        target.mkdir()
        return InstallRequest(
            target=target,
            python=Path(sys.executable),
            requirements=Requirements(origin="the contract"),
            log=tmp_path / "install.log",
            deadline=120,
            wheelhouse=(str(wheels),),
            offline=True,
        )

    def test_it_has_a_name_and_an_identity_that_stays(self, provider: Installer) -> None:
        assert provider.name
        assert provider.identity() == provider.identity() != ""

    def test_a_requirement_that_cannot_be_had_says_which_and_keeps_the_log(self, provider: Installer, request_for: InstallRequest) -> None:
        wanted = replace(request_for, requirements=Requirements(("no-such-thing-here",), origin="the contract"))
        with pytest.raises(InstallError, match="no-such-thing-here") as caught:
            provider.install(wanted)
        assert caught.value.log == request_for.log
        assert "no-such-thing-here" in request_for.log.read_text()
        assert caught.value.tail
        assert caught.value.hint

    def test_versions_that_contradict_each_other_are_refused(self, provider: Installer, request_for: InstallRequest) -> None:
        with pytest.raises(InstallError):
            provider.install(replace(request_for, requirements=Requirements(("contractapp", "contractdep==2.0"))))

    def test_a_deadline_stops_it(self, provider: Installer, request_for: InstallRequest) -> None:
        with pytest.raises(InstallError, match="longer than"):
            provider.install(replace(request_for, requirements=Requirements(("contractapp",)), deadline=0.001))

    def test_an_interpreter_that_is_not_there_is_refused(self, provider: Installer) -> None:
        with pytest.raises(InterpreterNotFoundError, match=r"3\.99"):
            provider.find_python("3.99")

    def test_what_is_no_version_is_no_interpreter(self, provider: Installer) -> None:
        with pytest.raises(InterpreterNotFoundError):
            provider.find_python("no-version")

    @pytest.mark.parametrize("text", ["--version", "--index-url=https://index.invalid", "-rrequirements.txt"])
    def test_a_requirement_is_never_taken_for_an_option(self, provider: Installer, request_for: InstallRequest, text: str) -> None:
        with pytest.raises(InstallError):
            provider.install(replace(request_for, requirements=Requirements(("contractdep", text))))

    def test_what_a_task_writes_into_one_environment_the_next_does_not_see(
        self, provider: Installer, request_for: InstallRequest, tmp_path: Path
    ) -> None:
        needs = replace(request_for, requirements=Requirements(("contractdep==2.0",)))
        first = provider.install(needs)
        self._ask(first, "import contractdep; open(contractdep.__file__, 'a').write('VERSION = None')")
        (tmp_path / "second").mkdir()
        second = provider.install(replace(needs, target=tmp_path / "second"))
        assert self._ask(second, "import contractdep; print(contractdep.VERSION)") == "2.0"

    def test_our_own_version_of_python_is_found(self, provider: Installer) -> None:
        import sys

        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert self._ask(provider.find_python(version), "import sys; print('%d.%d' % sys.version_info[:2])") == version

    def test_requirements_are_installed_with_what_they_require(self, provider: Installer, request_for: InstallRequest) -> None:
        python = provider.install(replace(request_for, requirements=Requirements(("contractapp",))))
        assert self._ask(python, "import contractapp, contractdep; print(contractdep.VERSION)") == "1.0"
        assert request_for.target in python.parents

    def test_requirements_files_and_wheels_are_installed(self, provider: Installer, request_for: InstallRequest, tmp_path: Path) -> None:
        file = tmp_path / "requirements.txt"
        file.write_text("contractdep==1.0\n")
        wheel = Path(request_for.wheelhouse[0], "contractapp-1.0-py3-none-any.whl")
        python = provider.install(replace(request_for, requirements=Requirements(files=(file,), build=wheel)))
        assert self._ask(python, "import contractapp; print(contractapp.VERSION)") == "1.0"

    def test_a_local_project_is_taken_from_its_path_whatever_an_index_has(
        self, provider: Installer, request_for: InstallRequest, tmp_path: Path
    ) -> None:
        mine = make_wheel(tmp_path / "mine", "contractdep", "0.1")
        needs = Requirements(("contractdep",), locals=(LocalProject("contractdep", mine),), origin="the contract")
        python = provider.install(replace(request_for, requirements=needs))
        assert self._ask(python, "import contractdep; print(contractdep.VERSION)") == "0.1"

    def test_what_the_application_adds_is_installed_too(self, provider: Installer, request_for: InstallRequest) -> None:
        needs = Requirements(("contractdep<2",), origin="the contract")
        python = provider.install(replace(request_for, requirements=needs, extra=("contractapp",)))
        assert self._ask(python, "import contractapp, contractdep; print(contractdep.VERSION)") == "1.0"

    def test_an_environment_without_requirements_is_empty_and_apart(self, provider: Installer, request_for: InstallRequest) -> None:
        python = provider.install(request_for)
        code = "import sys, importlib.util as u; print(sys.prefix != sys.base_prefix, u.find_spec('pytest'))"
        assert self._ask(python, code) == "True None"

    @staticmethod
    def _ask(python: Path, code: str) -> str:
        return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
