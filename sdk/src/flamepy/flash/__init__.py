"""The names of programs written for RunPod Flash, so that they scan, build and run as they are.

`from runpod_flash import …` and `from tetra_rp import …` mean this module: in what `flame build` makes, in the workers of a Runner, and
in a program started by ``flame run``. A program may also import it by its own name::

    from flamepy.flash import Endpoint, GpuGroup

    @Endpoint(name="greeter", gpu=GpuGroup.ANY)
    async def greet(name: str) -> str:
        return f"hello {name}"
"""

from __future__ import annotations

from flamepy.flash.endpoint import Endpoint, remote
from flamepy.flash.hardware import (
    CPU_DATACENTERS,
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    GpuGroup,
    GpuType,
    ServerlessScalerType,
    ServerlessType,
)
from flamepy.flash.jobs import EndpointJob
from flamepy.flash.settings import FlashApp, NetworkVolume, PodTemplate, ResourceManager, load_dotenv
from flamepy.flash.types import (
    CpuLiveLoadBalancer,
    CpuLiveServerless,
    CpuLoadBalancerSlsResource,
    CpuServerlessEndpoint,
    LiveLoadBalancer,
    LiveServerless,
    LoadBalancerSlsResource,
    ServerlessEndpoint,
)

DEFAULT_WORKERS_MIN = 0
DEFAULT_WORKERS_MAX = 3

__all__ = [
    "CPU_DATACENTERS",
    "DEFAULT_WORKERS_MAX",
    "DEFAULT_WORKERS_MIN",
    "CpuInstanceType",
    "CpuLiveLoadBalancer",
    "CpuLiveServerless",
    "CpuLoadBalancerSlsResource",
    "CpuServerlessEndpoint",
    "CudaVersion",
    "DataCenter",
    "Endpoint",
    "EndpointJob",
    "FlashApp",
    "GpuGroup",
    "GpuType",
    "LiveLoadBalancer",
    "LiveServerless",
    "LoadBalancerSlsResource",
    "NetworkVolume",
    "PodTemplate",
    "ResourceManager",
    "ServerlessEndpoint",
    "ServerlessScalerType",
    "ServerlessType",
    "load_dotenv",
    "remote",
]
