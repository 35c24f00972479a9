"""Settings of the host: where they come from, and what a wrong one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_host._settings import load_settings
from flame_host.api import ConfigError


def test_an_unknown_setting_is_refused_with_the_nearest_known_one(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_text("of_line = true\n")
    with pytest.raises(ConfigError, match=r"config\.toml: unknown setting 'of_line'(.|\n)*did you mean 'offline'"):
        load_settings({}, file=file, root=tmp_path)


def test_an_unknown_variable_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="environment variable FLAME_HOST_OFLINE"):
        load_settings({"FLAME_HOST_OFLINE": "1"}, root=tmp_path)


def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="FLAME_HOST_OFFLINE: offline = 'perhaps'"):
        load_settings({"FLAME_HOST_OFFLINE": "perhaps"}, root=tmp_path)


def test_a_broken_file_is_named(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_text("offline =\n")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_settings({}, file=file, root=tmp_path)


def test_a_file_that_is_named_and_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="which is no file"):
        load_settings({"FLAME_HOST_CONFIG": str(tmp_path / "none.toml")}, root=tmp_path)


def test_a_root_that_cannot_be_made_says_what_to_set(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="FLAME_HOST_ROOT"):
        load_settings({}, root=tmp_path / "file" / "below")


def test_arguments_win_over_the_environment_and_that_over_the_file(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_text('no_plugins = ["a"]\nfetch_seconds = 1\ninstall_seconds = 1\n')
    environ = {"FLAME_HOST_FETCH_SECONDS": "2", "FLAME_HOST_INSTALL_SECONDS": "2"}
    settings = load_settings(environ, file=file, root=tmp_path, install_seconds=3)
    assert (settings.no_plugins, settings.fetch_seconds, settings.install_seconds) == (("a",), 2.0, 3.0)


def test_a_denial_said_anywhere_holds(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_text('[policy]\npickle = "deny"\n')
    assert load_settings({"FLAME_HOST_POLICY": "pickle=allow"}, file=file, root=tmp_path).policy == {"pickle": "deny"}


def test_the_root_is_made_for_the_user_alone(tmp_path: Path):
    root = load_settings({"FLAME_HOST_ROOT": str(tmp_path / "new")}).root
    assert root.stat().st_mode & 0o777 == 0o700
