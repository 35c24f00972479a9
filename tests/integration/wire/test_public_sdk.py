"""Against the public SDK, flamepy 0.6.0, in an environment of its own: its stub and our servicer, its server and our client."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from flame_host.api import ObjectRef
from flame_host.testing.executor_manager import BindError, Registration
from flame_host.wire import bson
from flame_host.wire.flame.v1 import frontend_pb2, shim_pb2, types_pb2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILES = {"types": types_pb2, "shim": shim_pb2, "frontend": frontend_pb2}


def run(python: Path, source: str, *arguments: str) -> object:
    """Run a program of that environment; it answers in JSON."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([python, "-c", source, *arguments], capture_output=True, text=True, env=environment, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------------- descriptors

DUMP = """
import importlib, json
out = {}
for name in ("types", "shim", "frontend"):
    out[name] = importlib.import_module(f"flamepy.proto.{name}_pb2").DESCRIPTOR.serialized_pb.hex()
print(json.dumps(out))
"""


def facts(file: descriptor_pb2.FileDescriptorProto) -> set[tuple[object, ...]]:
    """All that reaches the wire."""
    found: set[tuple[object, ...]] = {("package", file.package)}
    for message in file.message_type:
        for field in message.field:
            found.add((message.name, field.name, field.number, field.type, field.label, field.type_name, field.proto3_optional))
        found.update((message.name, "reserved", reserved.start, reserved.end) for reserved in message.reserved_range)
    for enum in file.enum_type:
        found.update((enum.name, value.name, value.number) for value in enum.value)
    for service in file.service:
        for method in service.method:
            found.add((service.name, method.name, method.input_type, method.output_type, method.server_streaming, method.client_streaming))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_message_field_enum_and_method_is_the_public_one(public, name):
    theirs = descriptor_pb2.FileDescriptorProto.FromString(bytes.fromhex(run(public, DUMP)[name]))
    ours = descriptor_pb2.FileDescriptorProto()
    FILES[name].DESCRIPTOR.CopyToProto(ours)
    assert facts(ours) == facts(theirs)
    assert len(facts(ours)) > 10


# ---------------------------------------------------------------------------------------------------- its stub, our servicer

DRIVE = """
import json, sys
import cloudpickle, grpc
from flamepy.core.cache import ObjectRef
from flamepy.proto import shim_pb2, types_pb2
from flamepy.proto.shim_pb2_grpc import InstanceStub
from flamepy.runner.types import RunnerContext, RunnerRequest

class Counter:
    def __init__(self, initial=5):
        self.count = initial
    def add(self, amount, times=1):
        self.count += amount * times
        return self.count
    def fail(self):
        raise LookupError("no such counter")

stub = InstanceStub(grpc.insecure_channel("unix:" + sys.argv[1]))
counter = RunnerContext(execution_object=Counter)
answers = []

def enter(data):
    app = shim_pb2.ApplicationContext(name="flmrun", installer="python")
    result = stub.OnSessionEnter(shim_pb2.SessionContext(session_id="ssn-1", application=app, common_data=data))
    return [result.return_code, result.message]

def invoke(*args, **kwargs):
    data = cloudpickle.dumps(RunnerRequest(*args, **kwargs))
    result = stub.OnTaskInvoke(shim_pb2.TaskContext(task_id="1", session_id="ssn-1", input=data))
    return result

answers.append(enter(cloudpickle.dumps({"no": "context"})))
answers.append(enter(cloudpickle.dumps(counter)))
first = ObjectRef.decode(invoke("add", args=(2,)).output)
answers.append([first.endpoint, first.key, first.version])
second = ObjectRef.decode(invoke("add", args=(first,), kwargs={"times": 2}).output)
answers.append([second.endpoint, second.key, second.version])
third = ObjectRef.decode(invoke("add", args=(first.encode(),)).output)
answers.append([third.endpoint, third.key, third.version])
failed = invoke("fail")
answers.append([failed.return_code, failed.message, failed.HasField("output")])
wrong = stub.OnTaskInvoke(shim_pb2.TaskContext(task_id="1", session_id="ssn-1", input=cloudpickle.dumps("no request")))
answers.append([wrong.return_code, wrong.message])
answers.append(enter(cloudpickle.dumps(RunnerContext(execution_object=lambda a, b: a * b))))
product = ObjectRef.decode(invoke(args=(6, 7)).output)
answers.append([product.endpoint, product.key, product.version])
left = stub.OnSessionLeave(types_pb2.EmptyRequest())
answers.append([left.return_code, left.HasField("message")])
print(json.dumps(answers))
"""


def test_its_stub_drives_our_entrypoint_with_its_own_pickles(public, client):
    binding = client.open(len)  # only for the process; the public client enters sessions of its own
    refused, entered, first, second, third, failed, wrong, again, product, left = run(public, DRIVE, str(binding.socket))
    assert refused[0] != 0
    assert "a dict where a RunnerContext belongs" in refused[1]
    assert entered == again == [0, ""]

    def value(place: list[object]) -> object:
        return client.value(ObjectRef(*place))

    assert first[1].startswith("flmrun/ssn-1/")
    assert [value(first), value(second), value(third), value(product)] == [7, 21, 28, 42]
    assert failed[0] != 0
    assert "LookupError: no such counter" in failed[1]
    assert failed[2] is False
    assert "a str where a RunnerRequest belongs" in wrong[1]
    assert left == [0, False]


PICKLES = """
import json, sys
import cloudpickle
from flamepy.runner.types import RunnerContext, RunnerRequest
print(json.dumps([
    cloudpickle.dumps(cloudpickle.dumps(RunnerContext(execution_object=lambda a, b: a + b))).hex(),
    cloudpickle.dumps(RunnerRequest(kwargs={"a": 1, "b": 3})).hex(),
]))
"""


def test_a_context_that_stands_in_the_cache_is_found_by_its_reference(public, client, root):
    from flame_host.api import Payload

    context, request = (bytes.fromhex(text) for text in run(public, PICKLES))
    store = client.catalog.cache("local").open((root / "objects").as_uri())
    ref = store.put("flmrun/shared", Payload("cloudpickle/1", context))
    binding = client.manager.bind(Registration("flmrun"), "session", bson.encode_reference(ref))
    output = binding.invoke(request).output
    assert client.value(bson.decode_reference(output)) == 4
    store.delete(ref.key)
    with pytest.raises(BindError, match="ObjectNotFoundError"):
        client.manager.bind(Registration("flmrun"), "other", bson.encode_reference(ref))


# ---------------------------------------------------------------------------------------------------- its server, our client

SERVE = """
from flamepy.core.service import FlameService, run

class Service(FlameService):
    def on_session_enter(self, context):
        self.data = context.common_data()
        if self.data == b"refuse":
            raise ValueError("not today")
        self.application = context.application.name

    def on_task_invoke(self, context):
        if context.input == b"raise":
            raise KeyError("missing")
        if context.input is None:
            return None
        return b"|".join([self.application.encode(), context.session_id.encode(), context.task_id.encode(), self.data, context.input])

    def on_session_leave(self):
        return True

run(Service())
"""


def _bind(client, registration, session, common):
    """The public server shows its socket before it listens; a manager binds again when that costs it its only connection."""
    for _ in range(5):
        try:
            return client.manager.bind(registration, session, common)
        except BindError as error:
            if "failed to connect" not in str(error):
                raise
    raise AssertionError("five binds in a row came too early")


def test_our_client_drives_its_server(public, client, tmp_path):
    script = tmp_path / "service.py"
    script.write_text(SERVE)
    registration = Registration("theirs", command=str(public), arguments=(str(script),))
    with pytest.raises(BindError, match="not today"):
        _bind(client, registration, "refused", b"refuse")
    binding = _bind(client, registration, "session", b"common")
    assert binding.invoke(b"input").output == b"theirs|session|1|common|input"
    assert binding.invoke(b"").output == b"theirs|session|2|common|"
    assert binding.invoke(None).output is None
    failed = binding.invoke(b"raise")
    assert (failed.code, failed.message, failed.output) == (-1, "'missing'", None)
    ending = binding.unbind()
    assert (ending.leaves, ending.killed) == (1, False)
