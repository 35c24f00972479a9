"""``flame-host template``: what it prints is a registration, and tells a client what the host can do."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from flame_host.api import Capabilities, Capability, ConfigError
from flame_host.cli import app
from flame_host.wire.convert import CAPABILITIES_VARIABLE, capabilities_from_text, capabilities_to_text

OFFER = Capabilities(
    {
        "archivers": (Capability("tar.gz", 1, frozenset(), "flame-archive-tar"),),
        "serializers": (Capability("x", 2, frozenset({"a", "b"})),),
    },
    python="3.11",
    platform="linux",
)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAME_HOST_ROOT", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(app, ["template", *arguments])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"families": {"a": [[]]}, "python": "", "platform": ""}'])
def test_damaged_capabilities_are_refused_with_the_way_out(text):
    with pytest.raises(ConfigError, match="flame-host template"):
        capabilities_from_text(text)


def test_an_environment_that_is_no_pair_is_refused(command):
    result = command("--env", "NAME")
    assert result.exit_code == 2
    assert "KEY=VALUE" in result.output


def test_capabilities_survive_being_written_down():
    assert capabilities_from_text(capabilities_to_text(OFFER)) == OFFER


def test_what_is_printed_is_the_registration_of_this_host(command):
    result = command("--name", "my-host", "--env", "A=b=c", "--python", "/opt/flame/bin/python", "--max-instances", "4")
    assert result.exit_code == 0, result.output
    document = yaml.safe_load(result.output)
    assert document["metadata"] == {"name": "my-host"}
    spec = document["spec"]
    assert (spec["shim"], spec["command"], spec["arguments"]) == ("Host", "/opt/flame/bin/python", ["-m", "flame_host"])
    assert (spec["max_instances"], spec["delay_release"], spec["environments"]["A"]) == (4, 60, "b=c")
    assert "installer" not in spec
    told = capabilities_from_text(spec["environments"][CAPABILITIES_VARIABLE])
    assert "tar.gz" in [offer.name for offer in told.of("archivers")]
    assert "#   archivers" in result.output
