"""What a platform has on offer, by the names its programs use: GPUs, CPUs, data centres, CUDA versions.

The lists grow faster than releases of ours. A name or value that is not known here is therefore taken as it is written; `flame build`
tells which those were.
"""

from __future__ import annotations

from enum import Enum, EnumMeta
from typing import Any

__all__ = [
    "CPU_DATACENTERS",
    "CpuInstanceType",
    "CudaVersion",
    "DataCenter",
    "GpuGroup",
    "GpuType",
    "ServerlessScalerType",
    "ServerlessType",
]


class _OpenMeta(EnumMeta):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}")
        members = cls.__dict__["_member_map_"]
        return members[name] if name in members else cls(cls._value_of(name))


class _Open(Enum, metaclass=_OpenMeta):
    """An enumeration that takes what it does not know."""

    @classmethod
    def _value_of(cls, name: str) -> str:
        """What the platform calls something of this name."""
        return name

    @classmethod
    def _missing_(cls, value: object) -> Any:
        if not isinstance(value, str):
            return None
        member: Any = str.__new__(cls, value) if issubclass(cls, str) else object.__new__(cls)
        member._name_ = value.upper().replace("-", "_").replace(" ", "_").replace(".", "_")
        member._value_ = value
        cls._value2member_map_[value] = member
        return member

    @classmethod
    def all(cls) -> list[Any]:
        """Those known here, ``ANY`` left out."""
        return [member for member in cls if member.name != "ANY"]


class GpuGroup(_Open):
    """GPUs of about the same memory and generation, one as good as the other."""

    ANY = "any"
    ADA_24 = "ADA_24"
    ADA_32_PRO = "ADA_32_PRO"
    ADA_48_PRO = "ADA_48_PRO"
    ADA_80_PRO = "ADA_80_PRO"
    AMPERE_16 = "AMPERE_16"
    AMPERE_24 = "AMPERE_24"
    AMPERE_48 = "AMPERE_48"
    AMPERE_80 = "AMPERE_80"
    HOPPER_141 = "HOPPER_141"
    BLACKWELL_96 = "BLACKWELL_96"
    BLACKWELL_180 = "BLACKWELL_180"


class GpuType(_Open):
    """One model of GPU."""

    ANY = "any"
    NVIDIA_GEFORCE_RTX_3090 = "NVIDIA GeForce RTX 3090"
    NVIDIA_GEFORCE_RTX_4090 = "NVIDIA GeForce RTX 4090"
    NVIDIA_GEFORCE_RTX_5090 = "NVIDIA GeForce RTX 5090"
    NVIDIA_L4 = "NVIDIA L4"
    NVIDIA_A40 = "NVIDIA A40"
    NVIDIA_RTX_A4000 = "NVIDIA RTX A4000"
    NVIDIA_RTX_A4500 = "NVIDIA RTX A4500"
    NVIDIA_RTX_A5000 = "NVIDIA RTX A5000"
    NVIDIA_RTX_A6000 = "NVIDIA RTX A6000"
    NVIDIA_RTX_2000_ADA_GENERATION = "NVIDIA RTX 2000 Ada Generation"
    NVIDIA_RTX_4000_ADA_GENERATION = "NVIDIA RTX 4000 Ada Generation"
    NVIDIA_RTX_6000_ADA_GENERATION = "NVIDIA RTX 6000 Ada Generation"
    NVIDIA_RTX_PRO_6000_BLACKWELL_SERVER_EDITION = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
    NVIDIA_RTX_PRO_6000_BLACKWELL_WORKSTATION_EDITION = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
    NVIDIA_RTX_PRO_6000_BLACKWELL_MAX_Q_WORKSTATION_EDITION = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    NVIDIA_A100_80GB_PCIe = "NVIDIA A100 80GB PCIe"
    NVIDIA_A100_SXM4_80GB = "NVIDIA A100-SXM4-80GB"
    NVIDIA_H100_80GB_HBM3 = "NVIDIA H100 80GB HBM3"
    NVIDIA_H200 = "NVIDIA H200"
    NVIDIA_B200 = "NVIDIA B200"


class CpuInstanceType(str, _Open):
    """``cpu<generation><kind>-<cores>-<GB of memory>``."""

    ANY = "any"
    CPU3G_1_4 = "cpu3g-1-4"
    CPU3G_2_8 = "cpu3g-2-8"
    CPU3G_4_16 = "cpu3g-4-16"
    CPU3G_8_32 = "cpu3g-8-32"
    CPU3C_1_2 = "cpu3c-1-2"
    CPU3C_2_4 = "cpu3c-2-4"
    CPU3C_4_8 = "cpu3c-4-8"
    CPU3C_8_16 = "cpu3c-8-16"
    CPU5C_1_2 = "cpu5c-1-2"
    CPU5C_2_4 = "cpu5c-2-4"
    CPU5C_4_8 = "cpu5c-4-8"
    CPU5C_8_16 = "cpu5c-8-16"

    @classmethod
    def _value_of(cls, name: str) -> str:
        return name.lower().replace("_", "-")


class DataCenter(str, _Open):
    """Where workers and volumes stand."""

    US_CA_2 = "US-CA-2"
    US_GA_2 = "US-GA-2"
    US_IL_1 = "US-IL-1"
    US_KS_2 = "US-KS-2"
    US_MO_1 = "US-MO-1"
    US_MO_2 = "US-MO-2"
    US_NC_2 = "US-NC-2"
    US_NE_1 = "US-NE-1"
    US_WA_1 = "US-WA-1"
    EU_CZ_1 = "EU-CZ-1"
    EU_RO_1 = "EU-RO-1"
    EUR_NO_1 = "EUR-NO-1"

    @classmethod
    def _value_of(cls, name: str) -> str:
        return name.replace("_", "-")


class CudaVersion(_Open):
    """Oldest CUDA a worker may have."""

    V11_8 = "11.8"
    V12_0 = "12.0"
    V12_1 = "12.1"
    V12_2 = "12.2"
    V12_3 = "12.3"
    V12_4 = "12.4"
    V12_5 = "12.5"
    V12_6 = "12.6"
    V12_7 = "12.7"
    V12_8 = "12.8"
    V12_9 = "12.9"
    V13_0 = "13.0"

    @classmethod
    def _value_of(cls, name: str) -> str:
        return name.removeprefix("V").replace("_", ".")


class ServerlessScalerType(_Open):
    """What decides on the number of workers."""

    QUEUE_DELAY = "QUEUE_DELAY"
    REQUEST_COUNT = "REQUEST_COUNT"


class ServerlessType(_Open):
    """Jobs through a queue, or HTTP through a load balancer."""

    QB = "QB"
    LB = "LB"


CPU_DATACENTERS = frozenset({DataCenter.EU_RO_1})
