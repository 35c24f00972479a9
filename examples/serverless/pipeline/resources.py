"""The two kinds of worker this project needs; each becomes an endpoint."""

from flamepy import CpuResource, GpuResource

gpu = GpuResource(name="gpu-worker", memory="8GiB", workers=(0, 2), env={"BATCH_SIZE": "16"})
cpu = CpuResource(name="cpu-worker", cpu=2, workers=(0, 4), dependencies=["humanize>=4"])
