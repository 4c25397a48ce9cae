"""What the server counts, and the text that Prometheus reads of it.

Everything is counted in one process, by one thread. Counters of requests begin at zero for every code that the server
may answer with: `rate` does not see a series begin.
"""

from __future__ import annotations

import os
import resource
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

#: Codes of answers to predictions. A model may raise any other from 400 to 599; that series begins when it does.
CODES = (200, 400, 404, 405, 408, 413, 415, 417, 422, 431, 499, 500, 501, 503, 504)

#: Upper bounds in seconds. The time limit and the part of it that an alert looks at are added.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: Of the time limit: where the alert on latency begins.
_ALERTED_PART = 0.8

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Requests by code, and how long they took. `timeout` is the time limit in seconds."""

    def __init__(self, labels: Mapping[str, str], timeout: float) -> None:
        self._labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        self._bounds = tuple(sorted({*BOUNDS, timeout, round(timeout * _ALERTED_PART, 6)}))
        self._buckets = [0] * (len(self._bounds) + 1)
        self._seconds = 0.0
        self._codes = dict.fromkeys(CODES, 0)

    def count(self, code: int) -> None:
        """A request is answered."""
        self._codes[code] = self._codes.get(code, 0) + 1

    def observe(self, seconds: float) -> None:
        """A request that the model was asked for took so long."""
        self._buckets[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def text(self, gauges: Iterable[Sample], pids: Sequence[int]) -> bytes:
        """The whole exposition, with what others count and the use that these processes and this one make."""
        labels = self._labels
        lines = _family("trueup_requests_total", "counter", "Predictions by the HTTP status of their answers.")
        lines += [f'trueup_requests_total{{{labels},code="{code}"}} {count}' for code, count in self._codes.items()]
        name = "trueup_request_duration_seconds"
        lines += _family(name, "histogram", "Seconds from a request that is read to its answer.")
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        lines += [f"{name}_sum{{{labels}}} {self._seconds!r}", f"{name}_count{{{labels}}} {total}"]
        for sample in gauges:
            lines += _family(sample.name, sample.type, sample.help)
            lines += [f"{sample.name}{{{labels}{extra}}} {value}" for extra, value in sample.series()]
        for sample in process(pids):
            lines += _family(sample.name, sample.type, sample.help)
            lines += [f"{sample.name} {value}" for _, value in sample.series()]
        return ("\n".join(lines) + "\n").encode()


class Sample:
    """One more metric. `values` is a number, or one for each value of the label `label`."""

    def __init__(self, name: str, kind: str, text: str, values: float | Mapping[str, float], label: str = "") -> None:
        self.name = name
        self.type = kind
        self.help = text
        self._values = values
        self._label = label

    def series(self) -> list[tuple[str, float]]:
        """The labels that come after the common ones, and the value."""
        if isinstance(self._values, Mapping):
            return [(f',{self._label}="{_escaped(key)}"', value) for key, value in self._values.items()]
        return [("", self._values)]


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def process(pids: Sequence[int]) -> list[Sample]:
    """What this process and those of `pids` use together, by the names that every Prometheus client gives it.

    A process's CPU time holds that of the children it has waited for, so nothing is lost when a worker is replaced.
    Where there is no /proc (macOS), CPU time only, and of this process only.
    """
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    own = _stat("self")
    if own is None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [_cpu(usage.ru_utime + usage.ru_stime)]
    stats = [own, *(stat for pid in pids if (stat := _stat(str(pid))) is not None)]
    # Fields of proc(5), counted from the third: 11 to 14 are CPU times, 19 is the start, 20 and 21 are memory.
    cpu = sum(int(field) for stat in stats for field in stat[11:15]) / ticks
    boot = next(
        int(line.split()[1]) for line in Path("/proc/stat").read_text("ascii").splitlines() if line.startswith("btime")
    )
    return [
        _cpu(cpu),
        Sample(
            "process_start_time_seconds", "gauge", "When the server began, as Unix time.", boot + int(own[19]) / ticks
        ),
        Sample("process_virtual_memory_bytes", "gauge", "Virtual memory.", sum(int(stat[20]) for stat in stats)),
        Sample(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory; what processes share counts for each of them.",
            sum(int(stat[21]) for stat in stats) * page,
        ),
        Sample(
            "process_open_fds", "gauge", "Open files of the front.", sum(1 for _ in Path("/proc/self/fd").iterdir())
        ),
        Sample(
            "process_max_fds",
            "gauge",
            "Files that the front may have open.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ),
    ]


def _cpu(seconds: float) -> Sample:
    return Sample("process_cpu_seconds_total", "counter", "CPU time, of the system and of users.", seconds)


def _stat(pid: str) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third on: the second is a name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
