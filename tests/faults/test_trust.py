"""Who may make us do what: the promises of docs/explanation/trust.md."""

from __future__ import annotations

import importlib
import os
import pickle
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner

from flame_host import Host
from flame_host.api import Application, CacheError, Payload, Plan, SessionSpec
from flame_host.engine.local import LocalConnection
from flame_host.testing.services import BareServices, OpenLease, RecordingTask

SECRET = "correct-horse-battery"


class Touch:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class WithAPackage(BareServices):
    """Services whose environment holds a package with one function."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "root")
        self.tree = directory / "tree"
        self.tree.mkdir()
        (self.tree / "inside_the_package.py").write_text("import os\ndef work(*values):\n    return len(values)\n")
        sys.path.insert(0, str(self.tree))
        try:
            self.function = importlib.import_module("inside_the_package").work
        finally:
            sys.path.remove(str(self.tree))

    def provision(self, application: Application) -> OpenLease:
        lease = super().provision(application)
        lease.environment = replace(lease.environment, paths=(self.tree,), tree=self.tree)
        return lease


@pytest.mark.parametrize("where", ["execution object", "argument"])
def test_a_pickle_is_not_read_where_the_plan_denies_it(tmp_path: Path, row: Any, where: str):
    services = WithAPackage(tmp_path)
    connection = LocalConnection("local:", services)
    connection.register_application(Application("denied", plan=Plan(serializers=("msgpack/1",), policy={"pickle": "deny"})))
    serializer = services.serializer("msgpack/1")
    evil = Payload("cloudpickle/1", pickle.dumps(Touch(tmp_path / "touched")))
    good = Payload("msgpack/1", serializer.dumps_code(services.function))  # type: ignore[attr-defined]
    session = connection.open_session(SessionSpec("denied", evil if where == "execution object" else good))
    task = RecordingTask(serializer)
    references = [evil] if where == "argument" else []
    found: list[object] = []

    def reference(value: object) -> int | None:
        if not isinstance(value, Touch):
            return None
        found.append(value)
        return 0

    data = serializer.dumps(((Touch(tmp_path),) if references else (), {}), reference=reference)
    session.submit(task, "", data, (), references)
    try:
        with pytest.raises(Exception, match="not admitted"):
            task.result(30)
    finally:
        connection.close()
    assert not (tmp_path / "touched").exists()
    row(f"policy pickle=deny, pickle as {where}", "refused unread", "refused unread", "its side effect did not happen")


def test_a_policy_of_the_host_is_kept_against_the_client(tmp_path: Path, row: Any, faults_home: Path, monkeypatch: pytest.MonkeyPatch):
    from flamepy import disconnect

    from flame_host.api import NegotiationError

    monkeypatch.setenv("FLAME_HOST_POLICY", "pickle=deny")
    with pytest.raises(NegotiationError, match="deny"):
        Runner("denied", engine="inline", package=False, project=tmp_path, serializers=["cloudpickle"]).open()
    disconnect()
    row("host denies pickle, client wants it", "NegotiationError", "NegotiationError", "-")


def test_the_host_process_never_unpickles(tmp_path: Path, row: Any):
    body = """
        import os, sys
        from pathlib import Path
        from flame_host.engine.local import LocalConnection
        from flame_host.testing.services import BareServices, RecordingTask
        from flame_host.api import Payload, SessionSpec
        seen = []
        class Kept(RecordingTask):
            def succeed(self, data, buffers): self.set_result(bytes(data))
            def fail_remotely(self, report): self.set_result(bytes(report))
        services = BareServices(Path(sys.argv[1]))
        connection = LocalConnection("local:", services)
        serializer = services.serializer("cloudpickle/1")
        class Value:
            pass
        def work(value, fail):
            if fail: raise KeyError(value)
            return [value] * 3
        session = connection.open_session(SessionSpec("flmrun", Payload("cloudpickle/1", serializer.dumps(work))))
        orders = [serializer.dumps(((Value(), fail), {})) for fail in (False, True)]
        sys.addaudithook(lambda event, arguments: seen.append(arguments) if event == "pickle.find_class" else None)
        for order in orders:
            task = Kept(serializer)
            session.submit(task, "", order)
            assert task.result(20)
            stored = connection.objects.put("flmrun/" + session.session_id, Payload("cloudpickle/1", task.result(), ()))
            connection.objects.get(stored)
        connection.close()
        print(len(seen))
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(body), str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stdout + done.stderr
    row("results and errors pass through the host", "nothing unpickled", f"{done.stdout.strip()} classes looked up", "-")


def test_a_stored_pickle_that_somebody_else_wrote_is_refused_before_it_is_read(tmp_path: Path, row: Any, monkeypatch, faults_home: Path):
    from flame_cache_local.local_cache import LocalCache

    monkeypatch.setenv("FLAME_CACHE_KEY", "11" * 32)
    endpoint = (tmp_path / "cache").as_uri()
    forged = LocalCache().open(endpoint).put("app/session/one", Payload("cloudpickle/1", pickle.dumps(Touch(tmp_path / "touched"))))
    monkeypatch.setenv("FLAME_CACHE_KEY", "22" * 32)
    with pytest.raises(CacheError, match="signature"):
        LocalCache().open(endpoint).get(forged)
    assert not (tmp_path / "touched").exists()
    row("stored pickle signed by somebody else", "CacheError, unread", "CacheError, unread", "its side effect did not happen")


def test_the_root_is_the_users_alone(tmp_path: Path, row: Any):
    previous = os.umask(0)
    try:
        root = Host(root=tmp_path / "root").root
    finally:
        os.umask(previous)
    mode = stat.S_IMODE(root.stat().st_mode)
    assert mode == 0o700
    row("root under umask 0", "mode 0700", f"mode {mode:04o}", "-")


def test_no_secret_shows_in_the_process_list_and_no_secret_file_is_packed(
    tmp_path: Path, row: Any, faults_home: Path, helpers: Any, caplog: pytest.LogCaptureFixture
):
    from flamepy import disconnect

    project = tmp_path / "project"
    project.mkdir()
    for name in (".env", ".env.local", "id_rsa", "server.pem", ".netrc", ".pypirc", "code.py"):
        (project / name).write_text(f"# {SECRET}\n")

    def look() -> tuple[str, list[str]]:
        return os.environ["TOKEN"], sorted(os.listdir(os.environ["FLAME_APP_DIR"]))

    caplog.set_level(0)
    with Runner("secrets", engine="local", project=project, environments={"TOKEN": SECRET}) as rr:
        service = rr.service(look)
        token, files = service().get(timeout=60)
        assert token == SECRET
        assert files == ["code.py"]
        lists = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in helpers.descendants())
        assert SECRET.encode() not in lists
        assert SECRET not in repr(rr) + repr(service)
    disconnect()
    assert SECRET not in caplog.text
    row("secrets", "not packed, logged or listed", "6 files left out, 0 mentions", "-")
