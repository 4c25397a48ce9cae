"""The metrics of our own, by name: what the server and the reconciler export, and what PromQL asks for.

`namespace` and `pod` are added by Prometheus. A counter is exported from zero for the codes that it may count, because
`rate` and `increase` do not see a series begin.
"""

from __future__ import annotations

#: Counter, of the server. Labels: model, variation, build_id (8 hex digits), code (the HTTP status).
REQUESTS = "trueup_requests_total"
#: Histogram in seconds, of the server. Labels: model, variation, build_id.
DURATION = "trueup_request_duration_seconds"
#: Counter, of the reconciler. Labels: model, environment, automation, outcome (Passed, Rejected, Inconclusive, Error).
GATE_VERDICTS = "trueup_gate_verdicts_total"

#: Seconds between two scrapes of a server in a cluster. `rate` wants four of them in its window, and the shortest is a
#: minute.
SCRAPE_SECONDS = 15


def pods_of(namespace: str, deployment: str) -> str:
    """The PromQL selector of one Deployment's pods. "NAME-.*" would also find those of "NAME-2"."""
    return f'namespace="{namespace}",pod=~"{deployment}-[a-z0-9]{{1,10}}-[a-z0-9]{{5}}"'
