"""Reading 10,000 spec files, beside the parts that nobody can do without: `python -m tests.benchmarks specs`.

CPU seconds and resident memory. The raw ceiling is the YAML reader and the types alone, without positions of
problems, JSON Schema, references and traffic.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

from reconciler.specs import Loaded, parse
from schemas.document import Document
from schemas.reader import read

#: Four files each.
MODELS = 2_500

ENVIRONMENTS = """\
api_version: v1
spec:
  environments:
    - name: staging
    - name: production
      promote_after: staging
"""
BUILD = """\
api_version: v1
spec:
  builds:
    - name: model-{n}-1
      model: model-{n}
      git_uri: https://github.com/acme/models.git#churn
      resources: {{cpu: 2, memory: 4Gi}}
      env_vars: {{LOG_LEVEL: info}}
"""
AUDIENCE = """\
api_version: v1
spec:
  audiences:
    - name: region-{n}
      priority: 10
      conditions:
        unary:
          - key: location
            operator: UNARY_OPERATOR_TYPE_EXACT_MATCH
            operand: region-{n}
"""
VARIATION = """\
api_version: v1
spec:
  variations:
    - model: model-{n}
      name: {name}
      environments: [staging, production]
      build: model-{n}-1
      deployment:
        number_of_pods: 3
        cpu_fraction: 1.5
        memory: 2Gi
        auto_scale_config:
          max_replica_count: 10
          prometheus_trigger: {{metric_type: latency, aggregation_type: p95, time_period: 5, threshold: 60}}
      traffic:
        - audience: region-{n}
          weight: 50
        - weight: {weight}
      rollout:
        canary:
          steps: [{{weight: 10, hold: 5m}}, {{weight: 50}}]
"""


def files() -> dict[str, bytes]:
    made = {"environments.yaml": ENVIRONMENTS}
    for n in range(MODELS):
        made[f"builds/{n}.yaml"] = BUILD.format(n=n)
        made[f"audiences/{n}.yaml"] = AUDIENCE.format(n=n)
        made[f"variations/{n}-a.yaml"] = VARIATION.format(n=n, name="a", weight=60)
        made[f"variations/{n}-b.yaml"] = VARIATION.format(n=n, name="b", weight=40)
    return {name: text.encode() for name, text in made.items()}


def resident() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4 / 1024


def measure(run: Callable[[], object]) -> tuple[object, float, float]:
    gc.collect()
    before, start = resident(), time.process_time()
    result = run()
    return result, time.process_time() - start, resident() - before


def main() -> None:
    good = files()
    broken = {name: content.replace(b"weight: 50", b'weight: "50"') for name, content in good.items()}
    parse({"environments.yaml": good["environments.yaml"]})  # compiles the schema and the types

    def raw() -> list[Document]:
        return [Document.model_validate(read(name, text).documents[0].value) for name, text in good.items()]

    print(f"{len(good):,} files, {sum(map(len, good.values())):,} bytes")
    for title, run in (
        ("reader and types alone", raw),
        ("parse", lambda: parse(good)),
        ("parse, half of the files bad", lambda: parse(broken)),
    ):
        result, seconds, memory = measure(run)
        problems = f"{len(result.problems):,} problems" if isinstance(result, Loaded) else ""
        print(f"  {title:<30} {seconds:6.2f} s  {memory:+6.0f} MiB  {problems}")
        del result


if __name__ == "__main__":
    main()
