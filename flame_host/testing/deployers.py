"""What every deployer must do. Inherit, and say which::

class TestMyDeployer(DeployerContract):
    @pytest.fixture
    def deployer(self): return MyDeployer()

    @pytest.fixture
    def release(self): return Release("contract-test", archive, digest, manifest, options)
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flame_host.api import Deployer, FlameError, Release

__all__ = ["DeployerContract"]


class DeployerContract:
    """The contract of `flame_host.api.Deployer`."""

    @pytest.fixture
    def deployer(self) -> Deployer:
        """The deployer under test."""
        raise NotImplementedError("override this fixture to return your deployer")

    @pytest.fixture
    def release(self) -> Release:
        """A real build, whose resource ``echo`` has the one function ``echo(text)``."""
        raise NotImplementedError("override this fixture to return a release")

    @pytest.fixture(autouse=True)
    def nothing_left(self, deployer: Deployer, release: Release) -> Iterator[None]:
        yield
        deployer.undeploy(release.application, release.options)
        assert not deployer.endpoints(release.application, release.options)

    def test_what_was_never_deployed_has_no_endpoints_and_is_not_undeployed(self, deployer: Deployer, release: Release) -> None:
        assert not deployer.endpoints("never-heard-of", release.options)
        assert deployer.undeploy("never-heard-of", release.options) is False

    def test_an_option_it_does_not_know_is_refused(self, deployer: Deployer, release: Release) -> None:
        with pytest.raises(FlameError):
            deployer.deploy(replace(release, options={**release.options, "no-such-option": "1"}))
        assert not deployer.endpoints(release.application, release.options)

    def test_what_is_deployed_answers_until_it_is_undeployed(self, deployer: Deployer, release: Release) -> None:
        endpoints = deployer.deploy(release)
        assert set(endpoints) == set(release.manifest["resources"])
        assert deployer.endpoints(release.application, release.options) == endpoints
        assert self.answer_of(endpoints["echo"], "hello") == "hello"
        assert deployer.undeploy(release.application, release.options) is True
        assert deployer.undeploy(release.application, release.options) is False

    def test_a_release_that_cannot_be_served_leaves_the_former_as_it_is(self, deployer: Deployer, release: Release) -> None:
        endpoints = deployer.deploy(release)
        broken = release.archive.with_name("broken.tar.gz")
        broken.write_bytes(b"no archive")
        with pytest.raises(FlameError):
            deployer.deploy(replace(release, archive=broken, digest="0" * 64))
        assert deployer.endpoints(release.application, release.options) == endpoints
        assert self.answer_of(endpoints["echo"], "still") == "still"

    def answer_of(self, url: str, text: str) -> object:
        """Give the endpoint a job; override for endpoints that want more than a plain request."""
        body = json.dumps({"input": {"text": text}}).encode()
        request = urllib.request.Request(f"{url}/runsync", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["output"]
