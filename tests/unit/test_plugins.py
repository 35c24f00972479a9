"""A broken plugin never stops another, and everybody is told why."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flame_host._plugins.catalog import Catalog
from flame_host._plugins.loading import PluginRecord, Selection, Status, hook_names
from flame_host.api import FormatNotAllowedError, PluginError

GOOD = """
    from flame_host.api import hookimpl

    class Provider:
        name = "{name}"
        suffixes = (".{name}",)
        magic = ((0, b"x"),)

        def write(self, members, target): ...
        def read(self, source, limits): ...

    @hookimpl
    def flame_archivers():
        return [Provider()]
"""

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a distribution with one plugin on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(name: str, source: str, entry: str = "") -> str:
        module = f"fake_plugin_{name.replace('-', '_')}"
        made.append(module)
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"fake_{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[flame_host]\n{entry or 'fake-' + name} = {module}\n")
        return module

    yield make
    for module in made:
        sys.modules.pop(module, None)


def record_of(catalog: Catalog, distribution: str) -> PluginRecord:
    return next(record for record in catalog.records if record.distribution == distribution)


def test_a_plugin_that_cannot_be_imported_fails_alone(install: Install):
    install("broken", "import no_such_module")
    install("good", GOOD.format(name="aaa"))
    catalog = Catalog()
    broken = record_of(catalog, "fake-broken")
    assert broken.status is Status.FAILED
    assert "No module named 'no_such_module'" in broken.reason
    assert catalog.archiver("aaa").name == "aaa"


def test_a_hook_that_raises_fails_its_plugin_and_says_what_it_raised(install: Install):
    install("raising", "from flame_host.api import hookimpl\n@hookimpl\ndef flame_stores():\n    raise OSError('disk')\n")
    record = record_of(Catalog(), "fake-raising")
    assert (record.status, record.reason) == (Status.FAILED, "flame_stores() raised OSError: disk")


def test_a_plugin_of_another_api_version_is_not_asked(install: Install):
    install("future", "FLAME_API_VERSION = 99\n" + textwrap.dedent(GOOD.format(name="fff")))
    catalog = Catalog()
    record = record_of(catalog, "fake-future")
    assert record.status is Status.INCOMPATIBLE
    assert "upgrade flame-host" in record.reason
    with pytest.raises(PluginError):
        catalog.archiver("fff")


def test_an_unknown_hook_is_a_mistake_not_a_silence(install: Install):
    install("typo", "from flame_host.api import hookimpl\n@hookimpl\ndef flame_archiver():\n    return []\n")
    record = record_of(Catalog(), "fake-typo")
    assert record.status is Status.INCOMPATIBLE
    assert "unknown hook flame_archiver()" in record.reason


def test_a_provider_without_a_key_is_refused(install: Install):
    install("nameless", "from flame_host.api import hookimpl\n@hookimpl\ndef flame_archivers():\n    return [object()]\n")
    record = record_of(Catalog(), "fake-nameless")
    assert record.status is Status.INCOMPATIBLE
    assert "object is no provider of archivers" in record.reason


def test_two_plugins_of_one_name_are_told_apart_by_their_distributions(install: Install):
    install("one", GOOD.format(name="n1"), entry="same")
    install("two", GOOD.format(name="n2"), entry="same")
    second = record_of(Catalog(), "fake-two")
    assert second.status is Status.SHADOWED
    assert "fake-one" in second.reason
    assert "fake-two" in second.reason


def test_two_providers_of_one_name_are_told_apart_by_their_distributions(install: Install):
    install("first", GOOD.format(name="dup"))
    install("second", GOOD.format(name="dup"))
    second = record_of(Catalog(), "fake-second")
    assert second.status is Status.SHADOWED
    assert "archiver 'dup' is offered by fake-first already" in second.reason


def test_a_blocked_plugin_is_not_even_imported(install: Install):
    module = install("blocked", GOOD.format(name="bbb"))
    record = record_of(Catalog(Selection(blocked=("fake-blocked",))), "fake-blocked")
    assert record.status is Status.DISABLED
    assert module not in sys.modules


def test_a_provider_that_lacks_a_part_of_its_contract_is_incompatible_and_says_which(install: Install) -> None:
    install("partly", GOOD.format(name="aaa").replace("def read", "def browse"))
    catalog = Catalog()
    record = record_of(catalog, "fake-partly")
    assert record.status is Status.INCOMPATIBLE
    assert "it has no read, see flame_host.api.Archiver" in record.reason
    assert "aaa" not in catalog.all("archivers")


def test_with_a_list_of_plugins_no_others_are_imported(install: Install):
    install("wanted", GOOD.format(name="www"))
    catalog = Catalog(Selection(only=("fake-wanted",)))
    assert list(catalog.all("archivers")) == ["www"]
    assert record_of(catalog, "flame-fetch-file").status is Status.DISABLED


def test_asking_for_what_is_not_there_says_what_there_is_and_what_to_install():
    with pytest.raises(PluginError) as caught:
        Catalog().archiver("tar.lz4")
    assert "tar.gz" in str(caught.value)
    assert "pip install" not in str(caught.value)  # nobody has registered that name; whoever does may be anybody


def test_a_name_written_wrongly_is_corrected_and_a_known_one_is_installed():
    with pytest.raises(PluginError, match="did you mean 'local'"):
        Catalog().engine("locl")
    with pytest.raises(PluginError, match="pip install flame-archive-zip"):
        Catalog(Selection(only=("fake",))).archiver("zip")


def test_what_is_advised_to_be_installed_exists_and_brings_the_name():
    from flame_host.api.negotiation import _DISTRIBUTIONS

    plugins = {path.name for path in (Path(__file__).parents[2] / "plugins").iterdir()}
    capabilities = Catalog().capabilities()
    for family, names in _DISTRIBUTIONS.items():
        assert {capability.name: capability.distribution for capability in capabilities.of(family)} == names
        assert set(names.values()) - {"flame-host", "flame-host-sdk"} <= plugins


def test_a_plugin_made_for_another_version_of_the_host_is_not_imported(install: Install, tmp_path: Path):
    module = install("older", GOOD.format(name="old"))
    metadata = tmp_path / "fake_older-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: flame-host[grpc]==0.0.1\n")
    record = record_of(Catalog(), "fake-older")
    assert record.status is Status.INCOMPATIBLE
    assert "wants flame-host[grpc]==0.0.1" in record.reason
    assert module not in sys.modules


def test_a_format_of_another_major_version_is_refused_unread():
    with pytest.raises(FormatNotAllowedError, match="cloudpickle/9"):
        Catalog().serializer("cloudpickle/9")


def test_our_own_engines_come_through_the_same_door():
    catalog = Catalog()
    assert {"local", "inline"} <= set(catalog.all("engines"))
    assert record_of(catalog, "flame-host").offers == ["engines:local", "engines:inline"]


def test_there_are_eight_hooks():
    assert len(hook_names()) == 8
