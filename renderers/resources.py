"""What a pod asks for: requests and limits, and which nodes may give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from renderers.manifest import Origin
from renderers.notes import Refused
from schemas.environment import Defaults, InstanceTemplate, Toleration
from schemas.resources import Resources
from schemas.variation import DeploymentSpecification

GPU = "nvidia.com/gpu"
#: A label for nodes, where no cloud sets one that tells the GPU: "t4", "a10g", "a100-80gb".
GPU_LABEL = "trueup.dev/gpu"


class Size(NamedTuple):
    """What one pod gets."""

    cpu: float  #: cores
    memory: str  #: a Kubernetes quantity
    gpu_type: str | None = None
    gpus: int = 0
    node_selector: tuple[tuple[str, str], ...] = ()


#: What a build gets that asks for nothing.
DEFAULT_BUILD = Size(2, "4Gi")

#: The platform's own instance templates, by id. Its memory is in GB, which we read as Gi.
INSTANCES: Mapping[str, Size] = {
    "prompt": Size(0.5, "1Gi"),
    "tiny": Size(1, "2Gi"),
    "small": Size(2, "4Gi"),
    "medium": Size(4, "8Gi"),
    "large": Size(8, "16Gi"),
    "xlarge": Size(16, "32Gi"),
    "2xlarge": Size(32, "64Gi"),
    "4xlarge": Size(64, "128Gi"),
    "gpu.t4.xl": Size(3, "14Gi", "NVIDIA_T4", 1),
    "gpu.t4.2xl": Size(7, "28Gi", "NVIDIA_T4", 1),
    "gpu.t4.4xl": Size(15, "59Gi", "NVIDIA_T4", 1),
    "gpu.a10.xl": Size(3, "14Gi", "NVIDIA_A10G", 1),
    "gpu.a10.2xl": Size(7, "28Gi", "NVIDIA_A10G", 1),
    "gpu.a10.4xl": Size(15, "59Gi", "NVIDIA_A10G", 1),
    "gpu.a10.8xl": Size(31, "123Gi", "NVIDIA_A10G", 1),
    "gpu.a10.12xl": Size(47, "189Gi", "NVIDIA_A10G", 4),
    "gpu.l4.xl": Size(3, "12Gi", "NVIDIA_L4", 1),
    "gpu.v100.xl": Size(7, "53Gi", "NVIDIA_V100", 1),
    "gpu.v100.4xl": Size(31, "227Gi", "NVIDIA_V100", 4),
    "gpu.v100.8xl": Size(63, "454Gi", "NVIDIA_V100", 8),
    "gpu.a100.xl": Size(10, "75Gi", "NVIDIA_A100", 1),
    "gpu.a100.8xl": Size(95, "1072Gi", "NVIDIA_A100", 8),
}

#: Cores and GiB beside one GPU where only its type is given: those of the platform's smallest template with it, or
#: what a cloud's smallest machine with it leaves to pods.
_BESIDE_ONE_GPU: Mapping[str, tuple[int, int]] = {
    "NVIDIA_K80": (3, 50),
    "NVIDIA_M60": (15, 110),
    "NVIDIA_T4": (3, 14),
    "NVIDIA_A10": (5, 45),
    "NVIDIA_A10G": (3, 14),
    "NVIDIA_L4": (3, 12),
    "NVIDIA_V100": (7, 53),
    "NVIDIA_A100": (10, 75),
}
_BESIDE_ONE_H100 = (22, 200)

#: A type that names a whole machine: NVIDIA_V100_4_32_208 has 4 GPUs, 32 cores and 208 GB.
_MACHINE = re.compile(r"(?P<gpu>.+?)_(?P<gpus>\d+)_(?P<cores>\d+)_(?P<gigabytes>\d+)")


class _Gpu(NamedTuple):
    """How nodes with a GPU are known. Any one of the labels is enough, since no label is set everywhere."""

    name: str  #: value of GPU_LABEL
    products: tuple[str, ...]  #: nvidia.com/gpu.product, by NVIDIA's feature discovery
    aws: str = ""  #: instance-gpu-name, as Karpenter and EKS Auto Mode set it
    gke: tuple[str, ...] = ()  #: cloud.google.com/gke-accelerator


_A100_40 = ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB")
_A100_80 = ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe")
_H100 = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe")
_GPUS: Mapping[str, _Gpu] = {
    "NVIDIA_K80": _Gpu("k80", ("Tesla-K80",), "k80", ("nvidia-tesla-k80",)),
    "NVIDIA_M60": _Gpu("m60", ("Tesla-M60",), "m60"),
    "NVIDIA_T4": _Gpu("t4", ("Tesla-T4",), "t4", ("nvidia-tesla-t4",)),
    "NVIDIA_A10": _Gpu("a10", ("NVIDIA-A10",)),
    "NVIDIA_A10G": _Gpu("a10g", ("NVIDIA-A10G",), "a10g"),
    "NVIDIA_L4": _Gpu("l4", ("NVIDIA-L4",), "l4", ("nvidia-l4",)),
    "NVIDIA_V100": _Gpu(
        "v100",
        ("Tesla-V100-SXM2-16GB", "Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-16GB"),
        "v100",
        ("nvidia-tesla-v100",),
    ),
    "NVIDIA_A100": _Gpu("a100", _A100_40 + _A100_80, "a100", ("nvidia-tesla-a100", "nvidia-a100-80gb")),
    "NVIDIA_A100_40GB": _Gpu("a100-40gb", _A100_40, gke=("nvidia-tesla-a100",)),
    "NVIDIA_A100_80GB": _Gpu("a100-80gb", _A100_80, gke=("nvidia-a100-80gb",)),
    "NVIDIA_H100_NVL": _Gpu("h100-nvl", ("NVIDIA-H100-NVL",)),
    "NVIDIA_H100_SXM": _Gpu("h100-sxm", ("NVIDIA-H100-80GB-HBM3",), "h100", ("nvidia-h100-80gb",)),
    "NVIDIA_H100_40GB": _Gpu("h100-40gb", ("NVIDIA-H100-80GB-HBM3-MIG-3g.40gb",)),
    "NVIDIA_H100_80GB": _Gpu("h100-80gb", _H100, "h100", ("nvidia-h100-80gb",)),
}

#: Spot nodes where the cloud taints them with their label, or we say that they may be.
_SPOT_TAINTS = (
    ("cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
    ("trueup.dev/purchase-option", "spot"),
)
#: The label of a spot node, by whoever sets it.
_SPOT_LABELS = (("karpenter.sh/capacity-type", "spot"), ("eks.amazonaws.com/capacityType", "SPOT"), *_SPOT_TAINTS)


@dataclass(frozen=True, slots=True)
class Placement:
    """The fields of a pod and its container that resources decide. Never changed: many pods share one."""

    resources: dict[str, Any]  #: of the container
    node_selector: dict[str, str] | None
    tolerations: list[dict[str, Any]] | None
    affinity: dict[str, Any] | None
    gpus: int


def build_placement(resources: Resources, purchase_option: str, defaults: Defaults, origin: Origin) -> Placement:
    """Where a build runs, and with what. Errors: `Refused` for an instance that nobody defines."""
    if resources.instance is not None:
        size = _instance(resources.instance, defaults, origin)
    elif resources.gpu_type is not None:
        size = _gpu_size(resources.gpu_type, resources.gpu_amount or 1)
    else:
        size = Size(resources.cpu or DEFAULT_BUILD.cpu, resources.memory or DEFAULT_BUILD.memory)
    return _placement(size, purchase_option, defaults.node_selector, defaults.tolerations)


def serving_placement(deployment: DeploymentSpecification, defaults: Defaults, origin: Origin) -> Placement:
    """Where a deployment's pods run: `instance` before `gpu_resources` before `cpu_fraction` and `memory`."""
    if deployment.instance is not None:
        size = _instance(deployment.instance, defaults, origin)
    elif deployment.gpu_resources is not None:
        size = _gpu_size(deployment.gpu_resources.gpu_type, deployment.gpu_resources.gpu_amount)
    else:
        size = Size(deployment.cpu_fraction, deployment.memory)
    return _placement(size, deployment.purchase_option, defaults.node_selector, defaults.tolerations)


def _instance(name: str, defaults: Defaults, origin: Origin) -> Size:
    for own, template in defaults.instance_templates:
        if own == name:
            return _template_size(template)
    if name not in INSTANCES:
        known = sorted({*INSTANCES, *(own for own, _ in defaults.instance_templates)})
        raise Refused(
            origin,
            "resources/unknown-instance",
            f"the environment has no instance {name!r}",
            f"one of {', '.join(known)}; or add it to the environment's defaults.instance_templates",
        )
    return INSTANCES[name]


def _template_size(template: InstanceTemplate) -> Size:
    gpus = (template.gpu_amount or 1) if template.gpu_type else 0
    return Size(template.cpu, template.memory, template.gpu_type, gpus, template.node_selector)


def _gpu_size(gpu_type: str, amount: int) -> Size:
    if machine := _MACHINE.fullmatch(gpu_type):
        # The node keeps a core and a tenth of the memory to itself, as in the platform's templates (16 GB -> 14).
        cores, gibibytes = int(machine["cores"]) - 1, int(machine["gigabytes"]) * 9 // 10
        return Size(cores, f"{gibibytes}Gi", gpu_type, int(machine["gpus"]))
    cores, gibibytes = _BESIDE_ONE_GPU.get(gpu_type, _BESIDE_ONE_H100)
    return Size(cores * amount, f"{gibibytes * amount}Gi", gpu_type, amount)


@lru_cache(maxsize=4096)
def _placement(
    size: Size, purchase_option: str, selector: tuple[tuple[str, str], ...], tolerations: tuple[Toleration, ...]
) -> Placement:
    # No CPU limit: throttling hurts the slowest requests most. Memory is limited to what was asked for, so that a
    # pod that leaks dies alone. A GPU must be limited to exactly what is asked for.
    limits = {"memory": memory_quantity(size.memory)}
    if size.gpus:
        limits[GPU] = str(size.gpus)
    accepted = [_toleration(toleration) for toleration in tolerations]
    if size.gpus:
        accepted.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    if purchase_option == "spot":
        accepted += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in _SPOT_TAINTS
        ]
    return Placement(
        resources={"requests": {"cpu": cpu_quantity(size.cpu), **limits}, "limits": limits},
        node_selector=dict(selector) | dict(size.node_selector) or None,
        tolerations=accepted or None,
        affinity={"nodeAffinity": _node_affinity(size.gpu_type, purchase_option)},
        gpus=size.gpus,
    )


def _node_affinity(gpu_type: str | None, purchase_option: str) -> dict[str, Any]:
    """Nodes with the GPU; spot nodes first, or none of them.

    Spot is a wish, because a cluster without spot nodes is no reason not to run. On-demand is a demand, and a node
    without any of the labels fulfils it.
    """
    on_demand = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in _SPOT_LABELS]
    demands = on_demand if purchase_option == "ondemand" else []
    affinity: dict[str, Any] = {}
    # Terms are alternatives; the expressions of a term must all hold.
    terms = [[kind, *demands] for kind in _gpu_expressions(gpu_type)] if gpu_type else [demands] if demands else []
    if terms:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": term} for term in terms]
        }
    if purchase_option == "spot":
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}}
            for key, value in _SPOT_LABELS
        ]
    return affinity


def _gpu_expressions(gpu_type: str) -> list[dict[str, Any]]:
    machine = _MACHINE.fullmatch(gpu_type)
    gpu = _GPUS[machine["gpu"] if machine else gpu_type]
    labels = [
        (GPU_LABEL, (gpu.name,)),
        ("nvidia.com/gpu.product", gpu.products),
        ("karpenter.k8s.aws/instance-gpu-name", (gpu.aws,) if gpu.aws else ()),
        ("eks.amazonaws.com/instance-gpu-name", (gpu.aws,) if gpu.aws else ()),
        ("cloud.google.com/gke-accelerator", gpu.gke),
    ]
    return [{"key": key, "operator": "In", "values": list(values)} for key, values in labels if values]


def _toleration(toleration: Toleration) -> dict[str, Any]:
    made = {
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
        "effect": toleration.effect,
        "tolerationSeconds": toleration.toleration_seconds,
    }
    return {key: value for key, value in made.items() if value is not None}


@lru_cache(maxsize=1024)
def cpu_quantity(cores: float) -> str:
    """Cores as Kubernetes writes them back: 2.0 -> "2", 0.5 -> "500m"; a written form that changes would be a diff."""
    milli = round(cores * 1000)
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


@lru_cache(maxsize=1024)
def memory_quantity(memory: str) -> str:
    """Memory as Kubernetes writes it back: "2048Mi" -> "2Gi", "1.5Gi" -> "1536Mi"."""
    amount = Decimal(memory[:-2]) * 1024 ** (_UNITS.index(memory[-2:]))
    size, unit = int(amount.to_integral_value(ROUND_CEILING)), 0
    while size % 1024 == 0 and unit < len(_UNITS) - 1:
        size, unit = size // 1024, unit + 1
    return f"{size}{_UNITS[unit]}"


_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
