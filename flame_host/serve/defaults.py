"""The applications every cluster has, as clients inspect them, and what stands for their programs here."""

from __future__ import annotations

import json
import sys

from flame_host.api import Capabilities
from flame_host.wire.convert import CAPABILITIES_VARIABLE, capabilities_to_text
from flame_host.wire.flame.v1 import types_pb2

TEMPLATE = "flame-host"
MAX_INSTANCES = 1_000_000
DELAY_RELEASE = 60
_INPUT = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "language": {"type": "string", "description": "The language of the script, e.g. python"},
        "code": {"type": "string", "description": "The code of the script to run, e.g. print('Hello, world!')"},
        "input": {
            "type": "array",
            "items": {"type": "integer", "description": "The input to the script in bytes, e.g. [0x1, 0x2]"},
        },
    },
    "required": ["language", "code"],
}
_OUTPUT = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "string",
    "description": "The output of the script in UTF-8.",
}
PROGRAMS = {
    "${FLAME_HOME}/bin/flmexec-service": "flame_host.serve.scripts",
    "${FLAME_HOME}/bin/flmping-service": "flame_host.serve.ping",
}
_RUNNERS = ("flamepy.runner.runpy", "flamepy.runpy", "flame_host")


def default_applications() -> dict[str, types_pb2.ApplicationSpec]:
    flmexec = types_pb2.ApplicationSpec(
        description="The Flame Executor application, which is used to run scripts.",
        command="${FLAME_HOME}/bin/flmexec-service",
        schema=types_pb2.ApplicationSchema(input=json.dumps(_INPUT), output=json.dumps(_OUTPUT)),
    )
    flmping = types_pb2.ApplicationSpec(
        url="file://${FLAME_HOME}/bin/flmping-service",
        command="${FLAME_HOME}/bin/flmping-service",
    )
    flmrun = types_pb2.ApplicationSpec(
        description="The Flame Runner application for executing customized Python applications.",
        command="${FLAME_HOME}/bin/uv",
        arguments=["run", "--python", "python${FLAME_PYTHON_VERSION}", "python", "-m", "flamepy.runner.runpy"],
        installer="python",
    )
    return {name: completed(spec) for name, spec in (("flmexec", flmexec), ("flmping", flmping), ("flmrun", flmrun))}


def our_template(capabilities: Capabilities) -> types_pb2.ApplicationSpec:
    """What our own client makes its applications after. It is found by its name, and not listed: a cluster has three applications."""
    facts = types_pb2.Environment(name=CAPABILITIES_VARIABLE, value=capabilities_to_text(capabilities))
    return completed(types_pb2.ApplicationSpec(command=sys.executable, arguments=["-m", "flame_host"], environments=[facts]))


def completed(spec: types_pb2.ApplicationSpec) -> types_pb2.ApplicationSpec:
    """With what a cluster fills in: limits are always told, a schema is there if empty, an empty directory is none."""
    whole = types_pb2.ApplicationSpec()
    whole.CopyFrom(spec)
    if not whole.HasField("max_instances"):
        whole.max_instances = MAX_INSTANCES
    if not whole.HasField("delay_release"):
        whole.delay_release = DELAY_RELEASE
    if not whole.working_directory:
        whole.ClearField("working_directory")
    whole.schema.SetInParent()
    return whole


def runs_here(spec: types_pb2.ApplicationSpec) -> bool:
    """Whether it is one of the programs whose work a worker of ours does itself."""
    arguments = list(spec.arguments)
    return any(arguments[at] == "-m" and arguments[at + 1] in _RUNNERS for at in range(len(arguments) - 1))


def program_of(spec: types_pb2.ApplicationSpec) -> tuple[str, tuple[str, ...]]:
    """Command and arguments: a cluster's own programs have their equals here."""
    module = PROGRAMS.get(spec.command)
    if module is not None:
        return sys.executable, ("-m", module)
    return spec.command, tuple(spec.arguments)
