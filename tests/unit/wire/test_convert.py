"""Contexts and messages into values of the contract, and back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flame_host.api import Application, ConfigError, PackageRef, Payload, Plan, Resources, SessionInfo, SessionState
from flame_host.wire import convert
from flame_host.wire.contexts import ApplicationContext
from flame_host.wire.envelope import SessionOrder
from flame_host.wire.flame.v1 import types_pb2

ARCHIVERS = {
    "tar": SimpleNamespace(suffixes=(".tar",)),
    "tar.gz": SimpleNamespace(suffixes=(".tar.gz", ".tgz")),
    "gz": SimpleNamespace(suffixes=(".gz",)),
}


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a..b", ".hidden", "-x", "a" * 300, "tab\t"])
def test_a_name_that_could_leave_its_directory_is_refused(name):
    with pytest.raises(ConfigError, match="no name for an application"):
        convert.application_of(ApplicationContext(name), None, ARCHIVERS)


def test_a_binary_package_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="register the application without an installer"):
        convert.application_of(ApplicationContext("app", url="file:///a.tgz", installer="Binary"), None, ARCHIVERS)


@pytest.mark.parametrize(
    ("url", "format"),
    [("file:///A.TAR.GZ", "tar.gz"), ("https://h/a.tgz?sig=x.tar#y", "tar.gz"), ("s3://b/a.tar", "tar"), ("file:///a.whl", "")],
)
def test_the_longest_suffix_tells_the_format_of_a_bare_url(url, format):
    assert convert.package_of(url, ARCHIVERS) == PackageRef(url, "", 0, format)


@pytest.mark.parametrize(("installer", "expected"), [(None, "uv"), ("python", "uv"), ("Python", "uv"), ("pip", "pip")])
def test_an_older_clients_installer_is_translated(installer, expected):
    application = convert.application_of(ApplicationContext("app", url="file:///a.tgz", installer=installer), None, ARCHIVERS)
    assert application.plan.installer == expected


def test_what_a_client_of_ours_says_wins_over_the_url():
    package = PackageRef("file:///real.zip", "ab" * 32, 1, "zip")
    order = SessionOrder(Payload("cloudpickle/1", b""), plan=Plan(installer="pip"), package=package, environments={"A": "b"})
    context = ApplicationContext("app", url="file:///a.tgz", installer="python", working_directory="/w")
    application = convert.application_of(context, order, ARCHIVERS)
    assert (application.package, application.plan.installer, application.environments) == (package, "pip", {"A": "b"})
    assert application.working_directory == "/w"


def test_an_application_survives_the_clusters_messages():
    application = Application(
        "app",
        package=PackageRef("file:///a.tar", "", 0, "tar"),
        environments={"A": "b"},
        labels=("x",),
        command="/bin/python",
        arguments=("-m", "flame_host"),
        max_instances=3,
        delay_release=7.0,
        working_directory="/w",
        description="d",
    )
    message = types_pb2.Application(metadata=types_pb2.Metadata(id="app", name="app"), spec=convert.application_to_spec(application))
    assert convert.application_from_proto(message, ARCHIVERS) == application


def test_what_a_cluster_leaves_out_gets_the_clusters_defaults():
    back = convert.application_from_proto(types_pb2.Application(metadata=types_pb2.Metadata(name="a")), ARCHIVERS)
    assert (back.max_instances, back.delay_release, back.package) == (1_000_000, 60.0, None)


def test_sessions_and_resources_survive_the_clusters_messages():
    info = SessionInfo("s", "app", SessionState.CLOSED, 1.5, 2.25, pending=1, running=2, succeeded=3, failed=4, cancelled=5)
    assert convert.session_from_proto(convert.session_to_proto(info)) == info
    assert convert.resources_from_proto(convert.resources_to_proto(Resources(2, 1 << 40, 1))) == Resources(2, 1 << 40, 1)
