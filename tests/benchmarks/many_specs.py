"""A repository of as many specs as wanted, in the proportions of a real one, one spec in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_HEAD = "api_version: v1\nspec:\n"


def write(folder: Path, number: int) -> None:
    """Writes `number` specs: 1 in 1,000 an environment, then audiences, builds, variations and automations."""
    for count, (name, text) in enumerate(_specs(number)):
        if count == number:
            return
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_HEAD + text, encoding="utf-8")


def _specs(number: int) -> Iterator[tuple[str, str]]:
    environments = max(2, number // 1000)
    for n in range(environments):
        after = f"    promote_after: env-{n - 1}\n" if n % 2 else ""
        yield f"environments/env-{n}.yaml", f"  environments:\n  - name: env-{n}\n{after}"
    n = 0
    while True:
        places = f"[env-{2 * (n % (environments // 2))}, env-{2 * (n % (environments // 2)) + 1}]"
        yield f"audiences/audience-{n}.yaml", _AUDIENCE.format(n=n)
        for side in "ab":
            yield f"builds/model-{n}-{side}.yaml", _BUILD.format(n=n, side=side, commit=f"{n:039x}{side}")
        for side, audience in (("a", ""), ("b", f"audience: audience-{n}, ")):
            text = _VARIATION.format(n=n, side=side, audience=audience, places=places)
            yield f"variations/model-{n}-{side}.yaml", text
        if n % 2:
            yield f"automations/nightly-{n}.yaml", _AUTOMATION.format(n=n)
        n += 1


_AUDIENCE = """\
  audiences:
  - name: audience-{n}
    description: Who is asked for first
    priority: 10
    conditions:
      unary:
      - key: location
        operator: UNARY_OPERATOR_TYPE_EXACT_MATCH
        operand: place-{n}
"""
_BUILD = """\
  builds:
  - name: model-{n}-{side}
    model: model-{n}
    git_uri: https://git.example.com/models.git#models/model-{n}
    git_commit: {commit}
    main_dir: main
    tags: [nightly, team-{n}]
    env_vars: [LOG_LEVEL=info]
    parameters:
      n_estimators: "{n}"
    resources:
      cpu: 2
      memory: 4Gi
"""
_VARIATION = """\
  variations:
  - model: model-{n}
    name: {side}
    environments: {places}
    build: model-{n}-{side}
    deployment:
      number_of_http_server_workers: 2
      http_request_timeout_ms: 5000
      cpu_fraction: 1.5
      memory: 2Gi
      env_vars:
        LOG_LEVEL: info
        TOKEN: secret.scoring
      auto_scale_config:
        min_replica_count: 1
        max_replica_count: 10
        prometheus_trigger:
          metric_type: cpu
          aggregation_type: avg
          time_period: 5
          threshold: 60
    traffic:
    - {{{audience}weight: 100}}
"""
_AUTOMATION = """\
  automations:
  - name: nightly-{n}
    model: model-{n}
    trigger:
      scheduled:
        cron: 0 3 * * *
        time_zone: Europe/Berlin
    build_spec:
      git_uri: https://git.example.com/models.git#models/model-{n}
      git_branch: main
      resources:
        cpu: 2
        memory: 4Gi
    deployment_condition:
      metric_name: f1
      direction: ABOVE
      threshold: "0.65"
    deployment_spec:
      variation_name: nightly
"""
