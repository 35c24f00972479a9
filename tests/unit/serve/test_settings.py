"""A server is closed to other machines unless it has TLS and a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_host.api import ConfigError
from flame_host.serve.settings import ServerSettings, is_local

TLS = {"certificate": Path("cert.pem"), "key": Path("key.pem")}


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.168.0.4:1", "example.org:80"])
@pytest.mark.parametrize("more", [{}, TLS, {"token": "t" * 20}])
@pytest.mark.parametrize("option", ["listen", "cache"])
def test_other_machines_are_kept_out(address, more, option):
    with pytest.raises(ConfigError, match="other machines"):
        ServerSettings(**{option: address}, **more).check()


def test_with_tls_and_a_token_they_may_come(tmp_path):
    ServerSettings(listen="0.0.0.0:8080", cache="0.0.0.0:9090", token="t" * 20, **TLS).check()


def test_health_has_no_token_and_stays_here():
    with pytest.raises(ConfigError, match="--health"):
        ServerSettings(health="0.0.0.0:8079", token="t" * 20, **TLS).check()


def test_half_of_tls_is_none():
    with pytest.raises(ConfigError, match="certificate and its key"):
        ServerSettings(certificate=Path("cert.pem")).check()


@pytest.mark.parametrize("address", ["", "8080", "host", "host:", "host:x", "host:99999", "http://h:1"])
def test_what_is_no_address_is_said(address):
    with pytest.raises(ConfigError, match=r"host:port"):
        is_local(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:80", "[::1]:80", "127.9.9.9:1", "unix:/tmp/s"])
def test_this_machine_is_this_machine(address):
    assert is_local(address)
    ServerSettings(listen=address).check()


def test_the_token_is_in_no_repr():
    assert "secret-token" not in repr(ServerSettings(token="secret-token-of-mine"))
