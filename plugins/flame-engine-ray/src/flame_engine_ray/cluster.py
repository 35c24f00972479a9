"""The Ray cluster that an endpoint names, and what of it we use."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flame_engine_ray import aboard
from flame_host.api import ConfigError, Resources

_GROUPS = {"exchange": 2, "watch": 1, "control": 1, "data": 1}
_KNOWN = ("cpus", "object_store", "namespace", "placement", "autoscaling", "resource.<name>")
_CURRENT = "/tmp/ray/ray_current_cluster"  # where Ray notes the cluster that runs here
_KNOCK = 5.0  # seconds
_PLACEMENTS = {"spread": "SPREAD", "pack": "DEFAULT"}


@dataclass(frozen=True)
class Endpoint:
    """What an endpoint says: ``ray:`` starts a cluster on this machine, ``ray:auto`` finds the one that runs here, ``ray:host:6379``
    joins one, ``ray://host:10001`` is its client.

    Attributes:
        address: for ``ray.init``. cpus, object_store: of a cluster that is started. placement: Ray's scheduling strategy.
        autoscaling: the cluster grows when asked for more than it has. custom: resources of each executor, by Ray's names.
    """

    address: str
    cpus: int = 0
    object_store: int = 0
    namespace: str = ""
    placement: str = "SPREAD"
    autoscaling: bool = False
    custom: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises ConfigError for what it does not know."""
        place, _, query = text.partition(":")[2].partition("?")
        address = "local" if not place else "auto" if place == "auto" else f"ray:{place}" if place.startswith("//") else place
        values: dict[str, Any] = {}
        custom: dict[str, float] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            try:
                if key in ("cpus", "object_store"):
                    values[key] = _amount(value)
                elif key == "namespace":
                    values[key] = value
                elif key == "placement":
                    values[key] = _PLACEMENTS[value]
                elif key == "autoscaling":
                    values[key] = {"yes": True, "no": False}[value]
                elif key.startswith("resource."):
                    custom[key.removeprefix("resource.")] = float(value)
                else:
                    raise ConfigError(f"engine {text}: unknown option {key!r}", hint=f"known: {', '.join(_KNOWN)}")
            except (KeyError, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(f"engine {text}: {key}={value!r:.40} does not fit", hint="see docs/how-to/run-on-ray.md") from error
        if address != "local" and ("cpus" in values or "object_store" in values):
            raise ConfigError(f"engine {text}: cpus and object_store are for a cluster that is started here", hint="write  ray:?cpus=2")
        return cls(address, **values, custom=custom)


class Cluster:
    """A connection of this process to Ray: the one there is, or one that is made, and then ended by `close`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._kept: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.owned = not ray.is_initialized()
        if not self.owned:
            _refuse_another(endpoint)
        if self.owned:
            options: dict[str, Any] = {"address": endpoint.address, "log_to_driver": False, "logging_level": "warning"}
            if endpoint.namespace:
                options["namespace"] = endpoint.namespace
            if endpoint.address == "local":
                options |= {"include_dashboard": False}
                options |= {"num_cpus": endpoint.cpus} if endpoint.cpus else {}
                options |= {"object_store_memory": endpoint.object_store} if endpoint.object_store else {}
            try:
                _knock(endpoint.address)
                ray.init(**options)
            except (OSError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"there is no Ray cluster at {endpoint.address}: {error}",
                    hint="start one (ray start --head), or write  ray:  for one of its own",
                ) from error
        self.lost = False
        self._head = endpoint.address if endpoint.address.startswith("ray://") else ray.get_runtime_context().gcs_address
        cloudpickle.register_pickle_by_value(aboard)
        groups = {
            "exchange": "exchange",
            "watch": "watch",
            "control": "control",
            "kill": "control",
            "hand_over": "data",
        }
        self._actor = _actor_class(groups)

    def start_actor(self, resources: Resources | None) -> Any:
        """An actor, which begins to run when the cluster has room for it."""
        options: dict[str, Any] = {"scheduling_strategy": self._endpoint.placement, "max_restarts": 0}
        if resources is not None:
            options |= {"num_cpus": resources.cpu, "num_gpus": resources.gpu}
            options |= {"memory": resources.memory} if resources.memory else {}
        if self._endpoint.custom:
            options["resources"] = dict(self._endpoint.custom)
        return self._actor.options(**options).remote()

    def start_on_each_node(self, most: int) -> list[Any]:
        """An actor on each of so many nodes."""
        nodes = [node["NodeID"] for node in self.nodes()][:most]
        where = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        return [self._actor.options(num_cpus=0, max_restarts=0, scheduling_strategy=strategy).remote() for strategy in where]

    def keep(self, name: str, content: Callable[[], bytes]) -> Any:
        """A reference to something that nodes will ask for, stored once."""
        with self._lock:
            if name not in self._kept:
                self._kept[name] = ray.put(content())
            return self._kept[name]

    @property
    def cores(self) -> int:
        return max(1, int(sum(node["Resources"].get("CPU", 0) for node in self.nodes())))

    def nodes(self) -> list[dict[str, Any]]:
        return [node for node in ray.nodes() if node["Alive"]]

    def check(self, wanted: Resources) -> None:
        """Raises ConfigError when no node could ever hold such an executor."""
        if self._endpoint.autoscaling:
            return
        needs = {"CPU": wanted.cpu, "memory": wanted.memory, "GPU": wanted.gpu, **self._endpoint.custom}
        nodes = self.nodes()
        if not any(all(node["Resources"].get(name, 0) >= need for name, need in needs.items()) for node in nodes):
            asked = ", ".join(f"{name}={need:g}" for name, need in needs.items() if need)
            raise ConfigError(
                f"none of the {len(nodes)} nodes of the Ray cluster has {asked}",
                hint="ask for less with resreq=; for a cluster that grows when asked, add ?autoscaling=yes to the engine",
            )

    def answers(self) -> bool:
        """Whether the head can be reached."""
        try:
            _knock(self._head)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._kept.clear()
        if self.owned:
            self.owned = False
            if self.lost:
                os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or the next thing asked of Ray would start a cluster
            ray.shutdown()


def _actor_class(groups: Mapping[str, str]) -> Any:
    """The actor, with its methods in their groups."""
    methods = {name: ray.method(concurrency_group=group)(getattr(aboard.Executor, name)) for name, group in groups.items()}
    kind = type("Executor", (aboard.Executor,), {**methods, "__module__": aboard.__name__, "__doc__": aboard.Executor.__doc__})
    return ray.remote(concurrency_groups=_GROUPS)(kind)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray would ask for minutes, and then end this process."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
        with contextlib.suppress(OSError):
            address = address or Path(_CURRENT).read_text().strip()
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()


def _amount(text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    return int(float(text[:-1]) * units[text[-1].lower()]) if text[-1:].lower() in units else int(text)


def _refuse_another(endpoint: Endpoint) -> None:
    """A process is connected to one cluster of Ray at a time.

    Raises:
        ConfigError: it is connected to another than the endpoint names.
    """
    if endpoint.address in ("local", "auto") or "//" in endpoint.address:
        return
    here = ray.get_runtime_context().gcs_address
    if not is_same(endpoint.address, here):
        raise ConfigError(
            f"this program is connected to the Ray cluster at {here}, and {endpoint.address} is named",
            hint="call ray.shutdown() first, or run the other one in a program of its own",
        )


def is_same(named: str, connected: str) -> bool:
    """Whether an address as somebody writes it is the one that Ray tells: of several names and interfaces of a machine it tells one."""
    host, _, port = named.rpartition(":")
    its_host, _, its_port = connected.rpartition(":")
    if port != its_port:
        return False
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    on_this_machine = any(ipaddress.ip_address(one).is_loopback for one in found)
    return its_host in found or (on_this_machine and its_host == ray.util.get_node_ip_address())
