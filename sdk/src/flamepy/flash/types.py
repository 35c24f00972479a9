"""Resources with the names and keywords of RunPod Flash: GPU, CPU and load-balanced endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, ClassVar

from flamepy._remote.resources import CpuResource, GpuResource, Resource

__all__ = [
    "CpuLiveLoadBalancer",
    "CpuLiveServerless",
    "CpuLoadBalancerSlsResource",
    "CpuServerlessEndpoint",
    "EndpointResource",
    "LiveLoadBalancer",
    "LiveServerless",
    "LoadBalancerSlsResource",
    "ServerlessEndpoint",
]

_CORES = re.compile(r"cpu\w*?-(\d+)-\d+")


def cores_of(instances: Any) -> int:
    """Cores of the first of the CPU instance types, 1 if that does not say."""
    first = next(iter(instances), "") if isinstance(instances, (list, tuple)) else instances
    found = _CORES.fullmatch(str(getattr(first, "value", first) or "").lower().replace("_", "-").rpartition(".")[2])
    return int(found[1]) if found else 1


def taken(options: Mapping[str, Any], *, gpu: bool) -> dict[str, Any]:
    """Keywords of that SDK as a `Resource` takes them; what only the platform knows ends in ``options``."""
    rest = dict(options)
    known: dict[str, Any] = {key: rest.pop(key) for key in Resource.__dataclass_fields__ if key in rest and key != "options"}
    fewest, most = rest.pop("workersMin", None), rest.pop("workersMax", None)
    if fewest is not None or most is not None:
        known["workers"] = (fewest or 0, most if most is not None else max(3, fewest or 0))
    if gpu:
        known.setdefault("gpu", rest.pop("gpuCount", 1))
    elif "instanceIds" in rest:
        known.setdefault("cpu", cores_of(rest["instanceIds"]))
    # A value that is None is that of a variable which is not set; the worker's environment may have it.
    known["env"] = {key: value for key, value in (known.get("env") or {}).items() if value is not None}
    return {**known, "options": {key: _plain(value) for key, value in rest.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple, set, frozenset)) else value


class LiveServerless(GpuResource):
    """A GPU endpoint with a queue; with ``instanceIds`` in place of ``gpus``, a CPU endpoint."""

    def __init__(self, name: str = "", **options: Any) -> None:
        gpu = not options.get("instanceIds") or bool(options.get("gpus"))
        super().__init__(name, **{"gpu": 0, **taken(options, gpu=gpu)})


class ServerlessEndpoint(LiveServerless):
    """A GPU endpoint with a queue."""


class LiveLoadBalancer(LiveServerless):
    """A GPU endpoint that answers HTTP requests."""


class LoadBalancerSlsResource(LiveServerless):
    """A GPU endpoint that answers HTTP requests."""


class CpuLiveServerless(CpuResource):
    """A CPU endpoint with a queue."""

    def __init__(self, name: str = "", **options: Any) -> None:
        super().__init__(name, **taken(options, gpu=False))


class CpuServerlessEndpoint(CpuLiveServerless):
    """A CPU endpoint with a queue."""


class CpuLiveLoadBalancer(CpuLiveServerless):
    """A CPU endpoint that answers HTTP requests."""


class CpuLoadBalancerSlsResource(CpuLiveServerless):
    """A CPU endpoint that answers HTTP requests."""


class EndpointResource(Resource):
    """What ``Endpoint(…)`` stands for: a GPU unless ``cpu=`` says which CPU."""

    named_after: ClassVar[str] = "function"

    def __init__(
        self,
        name: str = "",
        *,
        gpu: Any = None,
        cpu: Any = None,
        workers: Any = None,
        gpu_count: int = 1,
        dependencies: Iterable[str] | None = None,
        system_dependencies: Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        if gpu is not None and cpu is not None:
            raise TypeError("Endpoint takes gpu= or cpu=, not both")
        kept = {**options, **({"gpu": gpu} if gpu is not None else {}), **({"cpu": cpu} if cpu is not None else {})}
        known = taken({key: value for key, value in kept.items() if key not in ("gpu", "cpu")}, gpu=False)
        known["options"] = {**known["options"], **{key: _plain(kept[key]) for key in ("gpu", "cpu") if key in kept}}
        super().__init__(
            name or "",
            cpu=1 if cpu is None else cores_of(cpu),
            gpu=gpu_count if cpu is None else 0,
            workers=(0, 3) if workers is None else tuple(workers) if isinstance(workers, list) else workers,
            dependencies=dependencies or (),
            system_dependencies=system_dependencies or (),
            **known,
        )
