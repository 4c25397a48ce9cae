"""The server's metrics, as the dashboards, alerts and autoscaling of the renderers ask for them."""

from __future__ import annotations

import os

from renderers.metrics import DURATION, REQUESTS
from runtime.server.metrics import Metrics, Sample, process

LABELS = {"model": 'a"b\\c', "variation": "default", "build_id": "3f9a1c2e"}
SHOWN = 'model="a\\"b\\\\c",variation="default",build_id="3f9a1c2e"'


def samples(metrics: Metrics, *more: Sample) -> dict[str, float]:
    lines = metrics.text(more, []).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_every_code_begins_at_zero_and_a_new_one_when_it_is_met() -> None:
    metrics = Metrics(LABELS, 5.0)
    before = samples(metrics)
    assert before[f'{REQUESTS}{{{SHOWN},code="504"}}'] == 0
    assert f'{REQUESTS}{{{SHOWN},code="451"}}' not in before
    metrics.count(504)
    metrics.count(451)
    after = samples(metrics)
    assert after[f'{REQUESTS}{{{SHOWN},code="504"}}'] == 1
    assert after[f'{REQUESTS}{{{SHOWN},code="451"}}'] == 1


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    metrics = Metrics(LABELS, 5.0)
    for seconds in (0.001, 0.0011, 0.7, 1000.0):
        metrics.observe(seconds)
    found = samples(metrics)

    def bucket(bound: str) -> float:
        return found[f'{DURATION}_bucket{{{SHOWN},le="{bound}"}}']

    assert [bucket(bound) for bound in ("0.001", "0.0025", "0.5", "1.0", "60.0", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert found[f"{DURATION}_count{{{SHOWN}}}"] == 4
    assert abs(found[f"{DURATION}_sum{{{SHOWN}}}"] - 1000.7021) < 1e-9


def test_the_time_limit_and_where_its_alert_begins_are_bounds() -> None:
    found = samples(Metrics(LABELS, 0.3))
    bounds = [name.partition('le="')[2].rstrip('"}') for name in found if "_bucket" in name]
    assert {"0.3", "0.24"} <= set(bounds)
    assert bounds[:-1] == [str(bound) for bound in sorted(map(float, bounds[:-1]))]
    assert bounds[-1] == "+Inf"


def test_each_metric_says_its_type_once() -> None:
    sample = Sample("trueup_workers", "gauge", "Workers.", {"idle": 1, "busy": 2}, "state")
    text = Metrics(LABELS, 1.0).text([sample], []).decode()
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert f"# TYPE {REQUESTS} counter" in types
    assert f"# TYPE {DURATION} histogram" in types
    assert f'trueup_workers{{{SHOWN},state="busy"}} 2' in text


def test_processes_are_summed_and_one_that_has_ended_is_passed_over() -> None:
    def memory(*pids: int) -> float:
        found = {sample.name: sample.series()[0][1] for sample in process(pids)}
        assert found["process_cpu_seconds_total"] > 0
        return found["process_resident_memory_bytes"]

    alone, twice = memory(2**22 + 1), memory(os.getpid())
    assert 1.5 < twice / alone < 2.5
