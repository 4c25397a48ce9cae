"""Rendering, beside dict builders written by hand: `python -m tests.benchmarks render`.

CPU microseconds for an object, the best of some interleaved rounds, with every object kept as a plan keeps it. The
builders are the ceiling: the same objects, with nothing between the values and the dict.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import yaml

import renderers
from renderers import autoscaling, build, monitoring, routing, serving
from renderers.catalog import Catalog, Facts, Placed, units
from renderers.manifest import Body, Origin
from renderers.template import FOLDER, Template
from schemas.audience import Audience
from schemas.build import Build
from schemas.environment import Environment
from schemas.variation import Variation

OBJECTS = 10_000
MODELS = 500
ROUNDS = 5
ORIGIN = Origin("specs.yaml", 1, "build", "x")


def by_hand(source: str) -> Callable[..., Body]:
    """The Python function that somebody would write for a template: one dict literal, then what may lack removed."""
    removals: list[str] = []

    def literal(node: Any, place: str) -> str:
        if isinstance(node, dict):
            return "{" + ", ".join(f"{k!r}: {literal(child, f'{place}[{k!r}]')}" for k, child in node.items()) + "}"
        if isinstance(node, list):
            return "[" + ", ".join(literal(item, f"{place}[{index}]") for index, item in enumerate(node)) + "]"
        if isinstance(node, str) and node.startswith("{{"):
            name = node.strip("{} ")
            if JOB_VALUES[name] is None:
                removals.append(f"    if {name} is None: del {place}")
            return name
        return repr(node)

    body = literal(yaml.safe_load(source), "body")
    names = [f"    {name} = values[{name!r}]" for name in JOB_VALUES]
    lines = ["def builder(**values):", *names, f"    body = {body}", *reversed(removals), "    return body"]
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), namespace)
    builder: Callable[..., Body] = namespace["builder"]
    return builder


JOB_VALUES: dict[str, Any] = {
    "name": "churn-build-3f9a1c2e",
    "namespace": "ml",
    "labels": {"app.kubernetes.io/name": "churn"},
    "annotations": {"trueup.dev/spec": "build/churn-1"},
    "deadline_seconds": 14400,
    "pod_labels": {"app.kubernetes.io/name": "churn"},
    "service_account": "trueup-build",
    "image_pull_secrets": None,
    "node_selector": None,
    "tolerations": [{"key": "ml", "operator": "Exists"}],
    "affinity": None,
    "command": ["python", "-m", "runtime"],
    "fetch_image": "ghcr.io/trueup/builder:0.1.0",
    "fetch_args": ["fetch"],
    "git_mount": None,
    "git_volume": None,
    "image": "ghcr.io/trueup/builder:0.1.0",
    "args": ["build"],
    "env": [{"name": "A", "value": "1"}],
    "resources": {"requests": {"cpu": "2", "memory": "4Gi"}},
    "google_mount": None,
    "google_volume": None,
}


def specs(models: int) -> Catalog:
    """Models with two builds and two variations each, autoscaled and routed: 5 specs and about 20 objects a model."""
    audience = Audience.model_validate(
        {"name": "adults", "conditions": {"unary": [{"key": "age", "operator": "GREATER_THAN", "operand": "17"}]}}
    )
    gateway = {"namespace": "gateways", "controller": "envoy-gateway"}
    place = Environment.model_validate(
        {
            "name": "production",
            "data_plane": "kubernetes",
            "object_storage": "s3://acme-models",
            "gateway": gateway,
            "prometheus_url": "http://prometheus.monitoring:9090",
        }
    )
    scaling = {"metric_type": "cpu", "aggregation_type": "avg", "time_period": 2, "threshold": 60}
    builds, variations = [], []
    for number in range(models):
        model = f"model-{number}"
        for name, traffic in (("default", [{"weight": 100}]), ("adults", [{"audience": "adults", "weight": 100}])):
            builds.append(
                Build.model_validate(
                    {
                        "name": f"{model}-{name}",
                        "model": model,
                        "git_uri": f"https://github.com/acme/models.git#models/{number}",
                        "git_commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
                        "env_vars": {"LOG_LEVEL": "info", "API_KEY": "secret.api-key"},
                        "parameters": {"for": name},
                    }
                )
            )
            variations.append(
                Variation.model_validate(
                    {
                        "model": model,
                        "name": name,
                        "environments": ["production"],
                        "build": f"{model}-{name}",
                        "deployment": {"auto_scale_config": {"max_replica_count": 9, "prometheus_trigger": scaling}},
                        "traffic": traffic,
                    }
                )
            )
    return Catalog(
        environments={"production": Placed(place, ORIGIN)},
        builds={spec.name: Placed(spec, ORIGIN) for spec in builds},
        variations={(spec.model, spec.name): Placed(spec, ORIGIN) for spec in variations},
        audiences={"adults": Placed(audience, ORIGIN)},
    )


def everything(catalog: Catalog) -> list[Any]:
    return [made for unit in units(catalog) for made in renderers.render(unit, Facts())]


def every_note(catalog: Catalog) -> list[Any]:
    return [(unit, renderers.notes(unit, Facts())) for unit in units(catalog)]


def concerns(catalog: Catalog) -> dict[str, Callable[[], list[Any]]]:
    """Each renderer by itself, for the objects that it makes."""
    made = [unit for unit in units(catalog) if unit.model]

    def of(module: Any) -> Callable[[], list[Any]]:
        return lambda: [manifest for unit in made for manifest in module.render(unit, Facts())]

    modules = (build, serving, routing, autoscaling, monitoring)
    return {f"  of that: {module.__name__.partition('.')[2]}": of(module) for module in modules}


def best_of(candidates: dict[str, Callable[[], list[Any]]]) -> dict[str, float]:
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            gc.collect()
            start = time.process_time()
            kept = run()
            best[name] = min(best[name], (time.process_time() - start) / len(kept) * 1e6)
            del kept
    return best


def memory(run: Callable[[], list[Any]]) -> float:
    """Bytes of an object that is kept."""
    gc.collect()
    tracemalloc.start()
    kept = run()
    taken = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return taken


def main() -> None:
    template, builder = Template("build-job"), by_hand((FOLDER / "build-job.yaml").read_text("utf-8"))
    assert template(**JOB_VALUES) == builder(**JOB_VALUES)
    catalog = specs(MODELS)
    candidates: dict[str, Callable[[], list[Any]]] = {
        "dict builder by hand (ceiling)": lambda: [builder(**JOB_VALUES) for _ in range(OBJECTS)],
        "compiled template": lambda: [template(**JOB_VALUES) for _ in range(OBJECTS)],
        "specs to manifests": lambda: everything(catalog),
        **concerns(catalog),
        "notes of a unit": lambda: every_note(catalog),
    }
    for collector in (True, False):
        if not collector:
            gc.disable()
        best = best_of(candidates)
        ceiling = next(iter(best.values()))
        print(f"garbage collector {'on' if collector else 'off'}")
        for name, cost in best.items():
            print(f"  {name:32} {cost:6.1f} us  {1e6 / cost:9,.0f} objects/s  {cost / ceiling:5.2f}x")
    print("bytes of an object that is kept")
    for name, run in candidates.items():
        print(f"  {name:32} {memory(run):8,.0f}")


if __name__ == "__main__":
    main()
