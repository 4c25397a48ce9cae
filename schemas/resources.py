"""What a container may use, as builds, deployments and batch executions say it."""

from typing import Annotated, Self

from pydantic import AliasChoices, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from schemas.base import Cpu, GpuAmount, GpuType, JsonSchema, Memory, SpecModel, refuse

#: The id of an instance template: of the platform's own table, or of the environment's `instance_templates`.
InstanceName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=63, examples=["small", "gpu.t4.xl"])
]


class GpuResources(SpecModel):
    """Whole GPUs of one type."""

    gpu_type: GpuType
    """The platform's name of the GPU."""
    gpu_amount: GpuAmount = 1
    """How many, for each pod."""


class Resources(SpecModel):
    """Exactly one family: `cpu` with `memory`, or `gpu_type` with `gpu_amount`, or `instance`. None: 2 cores, 4Gi."""

    cpu: Annotated[Cpu | None, Field(validation_alias=AliasChoices("cpu", "cpus", "cpu_fraction"))] = None
    """Cores."""
    memory: Memory | None = None
    """Request and limit in one."""
    gpu_type: GpuType | None = None
    """The platform's name of the GPU."""
    gpu_amount: GpuAmount | None = None
    """How many GPUs."""
    instance: InstanceName | None = None
    """An instance template."""

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        families = {
            "cpu and memory": self.cpu is not None or self.memory is not None,
            "gpu_type and gpu_amount": self.gpu_type is not None or self.gpu_amount is not None,
            "instance": self.instance is not None,
        }
        given = [name for name, is_given in families.items() if is_given]
        if len(given) > 1:
            refuse("resources/two-families", f"{' and '.join(given)} exclude each other", hint=f"keep {given[0]}")
        if self.gpu_amount is not None and self.gpu_type is None:
            refuse("resources/gpu", "gpu_amount needs a gpu_type", at="gpu_amount")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Adds the platform's other two spellings of `cpu`."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        cpu = schema["properties"]["cpu"]
        for spelling in ("cpus", "cpu_fraction"):
            schema["properties"][spelling] = {**cpu, "description": "Another spelling of `cpu`.", "deprecated": True}
        return reference
