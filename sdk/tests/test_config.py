"""``flame.yaml``, ``[tool.flame]``, the environment, and who wins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flamepy import ConfigError, FlameContext, FlamePackage, NegotiationError, Runner, put_object
from flamepy._config.settings import resolve

Write = Callable[..., Path]

CLUSTERS = """---
current-cluster: flame
clusters:
  - name: flame
    endpoint: "http://127.0.0.1:30080"
    cache: "http://127.0.0.1:30090"
    package:
      storage: "file:///opt/flame/packages"
      excludes:
        - "*.log"
        - "*.pkl"
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("current-cluster: other\nclusters:\n  - name: flame\n", r"line 1: current-cluster is 'other', but .* there are: flame"),
        ("clusters:\n  - name: a\n  - name: b\n", "current-cluster is missing"),
        ("clusters:\n  - name: a\n    endpont: x\n", r"line 3: unknown key 'endpont'\n.*did you mean 'endpoint'"),
        ("clusters:\n  - name: a\n    package:\n      excludes: []\n", r"line 3: package has no storage"),
        ("clusters:\n  - name: a\n    package:\n      - storage: file:///a\n      - storage: file:///b\n", "is a list of 2"),
        ("clusters: [\n", r"line 2: not valid YAML"),
        ("- just a list\n", "not keys and values"),
        ("clusters:\n  - name: a\n    package:\n      storage: /opt\n", r"not a URL\n.*file:///opt"),
    ],
)
def test_a_wrong_flame_yaml_is_refused_with_file_and_line(write: Write, content: str, message: str) -> None:
    write("flame.yaml", content)
    with pytest.raises(ConfigError, match=r"(?s)" + message):
        FlameContext()


def test_a_package_without_storage_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a storage"):
        FlamePackage("")
    with pytest.raises(ConfigError, match="one string"):
        FlamePackage("file:///x", excludes="*.log")  # type: ignore[arg-type]


FAR = """
from flame_host.api import hookimpl
from flame_host.testing.engines import FakeConnection

class FarConnection(FakeConnection):
    def capabilities(self):
        return self._capabilities()  # nothing is said of files, so none are seen

class FarEngine:
    name = "far"
    schemes = ("far",)

    def connect(self, endpoint, services):
        return FarConnection(endpoint, services.capabilities, services.serializer)

@hookimpl
def flame_engines():
    return [FarEngine()]
"""


@pytest.fixture
def far_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Endpoint of an engine, offered by a plugin, whose hosts do not see this machine's files."""
    site = tmp_path / "site"
    about = site / "flame_engine_far-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "flame_engine_far.py").write_text(FAR)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: flame-engine-far\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[flame_host]\nfar = flame_engine_far\n")
    monkeypatch.syspath_prepend(str(site))
    yield "far://away"
    sys.modules.pop("flame_engine_far", None)


def test_an_engine_that_sees_no_files_of_this_machine_needs_a_storage(far_engine: str, write: Write, tmp_path: Path) -> None:
    write("program.py", "")
    with pytest.raises(ConfigError, match=f"no package storage is configured, and {far_engine} cannot see") as caught:
        Runner("x", engine=far_engine).open()
    assert "FLAME_STORAGE" in caught.value.hint
    with Runner("x", engine=far_engine, storage=(tmp_path / "storage").as_uri()) as rr:
        assert rr.application.package is not None
        assert rr.application.package.url.startswith((tmp_path / "storage").as_uri())
    with Runner("x", engine=far_engine, package=False) as rr:
        assert rr.service(abs)(-1).get() == 1


def test_an_engine_elsewhere_is_told_what_flame_yaml_says_of_the_way_there(write: Write, project: Path) -> None:
    cluster = "clusters:\n  - name: a\n    endpoint: far://a\n    tls: {ca_file: /ca.pem}\n    cache: grpcs://b\n"
    write("flame.yaml", cluster)
    settings = resolve(project, {})
    assert (settings.engine, settings.cache) == ("far://a?ca_file=%2Fca.pem&cache=grpcs%3A%2F%2Fb", "")
    assert resolve(project, {"engine": "far://other"}).engine == "far://other"  # of which the file says nothing


def test_objects_go_to_the_cache_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_CACHE_ENDPOINT", (tmp_path / "objects").as_uri())
    with Runner("x", engine="inline", package=False) as rr:
        service = rr.service(sum)
        reference = rr.put_object([1, 2])
        assert reference.endpoint == (tmp_path / "objects").as_uri()
        result = service(reference)
        assert (reference.get(), result.get()) == ([1, 2], 3)
        assert result.ref().endpoint == reference.endpoint
        assert service([result, 4]).get() == 7
        assert put_object("mine", 5).endpoint == reference.endpoint


def test_a_cache_that_nothing_here_serves_is_refused_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_CACHE_ENDPOINT", "no-such-cache://host")
    with pytest.raises(ConfigError, match="FLAME_CACHE_ENDPOINT no-such-cache://host: no cache here serves no-such-cache:"):
        Runner("x", engine="inline", package=False).open()
    monkeypatch.delenv("FLAME_CACHE_ENDPOINT")
    with pytest.raises(NegotiationError, match="no-such-cache: the client does not have it"):
        Runner("x", engine="inline", package=False, caches=["no-such-cache"]).open()


def test_a_cache_by_name_and_another_by_endpoint_contradict_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_CACHE_ENDPOINT", tmp_path.as_uri())
    with pytest.raises(ConfigError, match=r"is served by the cache local, and .* wants flight"):
        Runner("x", engine="inline", package=False, caches=["flight"]).open()


def test_certificates_that_check_nothing_are_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FLAME_CA_FILE", "/ca.pem")
    with Runner("x", engine="inline", package=False):
        assert "FLAME_CA_FILE: nothing is reached over a network" in caplog.text


def test_what_workers_need_is_said_once_for_all_services(write: Write) -> None:
    write("pyproject.toml", '[tool.flame]\nresources = "cpu=9999"\n')
    with Runner("x", engine="inline") as rr:
        with pytest.raises(ConfigError, match="9999"):
            rr.service(abs)
        assert rr.service(abs, resreq="cpu=1")(-1).get() == 1
    write("pyproject.toml", '[tool.flame]\nresources = "cpus=1"\n')
    with pytest.raises(ConfigError, match=r"\[tool.flame\] resources: unknown resource 'cpus'"):
        Runner("x", engine="inline").open()


def test_the_name_of_an_application_is_not_the_projects_to_say(write: Write) -> None:
    write("pyproject.toml", '[tool.flame]\nname = "other"\n')
    with pytest.raises(ConfigError, match="unknown key 'name'"):
        Runner("x", engine="inline").open()


def test_what_is_said_of_a_cluster_goes_with_its_endpoint(tmp_path: Path) -> None:
    (tmp_path / "flame.yaml").write_text(
        "contexts: [{name: lab, cluster: {endpoint: 'http://lab:8080', tls: {ca_file: /ca.crt}}, "
        "cache: {endpoint: 'grpc://lab:9090'}, runner: {template: mine}}]"
    )
    settings = resolve(tmp_path, {}, FlameContext(tmp_path / "flame.yaml"))
    assert settings.engine == "http://lab:8080?ca_file=%2Fca.crt&cache=grpc%3A%2F%2Flab%3A9090&template=mine"
    assert resolve(tmp_path, {"engine": "local"}, FlameContext(tmp_path / "flame.yaml")).engine == "local:"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("archiver = ['zip']", r"line 3: unknown key 'archiver' in \[tool.flame\]\n.*did you mean 'archivers'"),
        ("archivers = 'zip'", r"line 3: archivers must be a list"),
        ("engine = 3", r"line 3: engine must be a string"),
        ("logs = 'loud'", r"\[tool.flame\] logs: logs is 'loud'"),
    ],
)
def test_a_wrong_key_in_the_project_is_refused_with_the_line(write: Write, project: Path, line: str, message: str) -> None:
    write("pyproject.toml", f"# mine\n[tool.flame]\n{line}\n")
    with pytest.raises(ConfigError, match=r"(?s)" + message):
        resolve(project, {})


def test_a_broken_pyproject_is_refused(write: Write, project: Path) -> None:
    write("pyproject.toml", "[tool.flame\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        resolve(project, {})


def test_flame_package_defaults_and_merge() -> None:
    assert FlamePackage("file:///x").excludes == [".venv", "__pycache__", ".gitignore", "*.pyc"]
    assert FlamePackage(storage="file:///x", excludes=["*.log", ".venv"]).excludes == [
        ".venv",
        "__pycache__",
        ".gitignore",
        "*.pyc",
        "*.log",
    ]


def test_the_documents_file_is_read(write: Write) -> None:
    write("flame.yaml", CLUSTERS)
    context = FlameContext()
    assert (context.name, context.endpoint, context.cache) == ("flame", "http://127.0.0.1:30080", "http://127.0.0.1:30090")
    assert context.package is not None
    assert context.package.storage == "file:///opt/flame/packages"
    assert context.package.excludes[-2:] == ["*.log", "*.pkl"]


def test_the_proposals_list_shape_and_the_newer_contexts_are_read(write: Write) -> None:
    write("flame.yaml", CLUSTERS.replace('      storage: "file', '      - storage: "file').replace("      excludes", "        excludes"))
    assert FlameContext().package is not None
    write(
        "flame.yaml",
        "current-context: b\ncontexts:\n  - name: a\n    cluster: {endpoint: http://a}\n"
        "  - name: b\n    cluster: {endpoint: http://b, tls: {ca_file: /ca}}\n    cache: {endpoint: grpc://c, storage: disk}\n",
    )
    context = FlameContext()
    assert (context.endpoint, context.ca_file, context.cache, context.cache_storage) == ("http://b", "/ca", "grpc://c", "disk")


def test_the_environment_overrides_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("flame.yaml", CLUSTERS)
    for name in ("FLAME_ENDPOINT", "FLAME_CACHE_ENDPOINT", "FLAME_CA_FILE", "FLAME_CACHE_STORAGE"):
        monkeypatch.setenv(name, f"of {name}")
    context = FlameContext()
    assert [context.endpoint, context.cache, context.ca_file, context.cache_storage] == [
        "of FLAME_ENDPOINT", "of FLAME_CACHE_ENDPOINT", "of FLAME_CA_FILE", "of FLAME_CACHE_STORAGE",
    ]  # fmt: skip


def test_without_any_file_everything_has_a_default(project: Path) -> None:
    context = FlameContext()
    assert (context.path, context.package, context.endpoint) == (None, None, "")
    assert resolve(project, {}).engine == resolve(project, {"engine": "local"}).engine == "local:"


def test_precedence_is_keyword_then_environment_then_project_then_file(
    write: Write, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("flame.yaml", CLUSTERS)
    assert resolve(project, {}).engine == "http://127.0.0.1:30080?cache=http%3A%2F%2F127.0.0.1%3A30090"
    write("pyproject.toml", '[tool.flame]\nengine = "of-project:"\n')
    assert resolve(project, {}).engine == "of-project:"
    monkeypatch.setenv("FLAME_ENGINE", "of-environment:")
    assert resolve(project, {}).engine == "of-environment:"
    settings = resolve(project, {"engine": "of-keyword:"})
    assert (settings.engine, settings.origins["engine"]) == ("of-keyword:", "Runner(…) engine")


def test_policies_add_up_and_the_strictest_wins(write: Write, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("pyproject.toml", '[tool.flame.policy]\npickle = "deny"\n')
    monkeypatch.setenv("FLAME_POLICY", "pickle=allow,builds=deny")
    assert resolve(project, {"policy": {"pickle": "allow"}}).policy == {"pickle": "deny", "builds": "deny"}
