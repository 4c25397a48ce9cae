"""Whether a build may go on: gates before it is served, checks while it takes over. Pure, in exact decimals.

Four outcomes: Passed lets it go on; Rejected does not, and says why; Inconclusive is held for a person; Error is tried
again while that may help, and then held. What is not known never passes and never rejects.

`values`: what counts as a number, and how two are compared. `builds`: a build's metric against a number, SQL, or the
build that is served. `checks`: what Prometheus says of a canary.
"""

from reconciler.gates.builds import Asked, judge, judge_trigger, threshold_of
from reconciler.gates.checks import Expressions, Measured, Measurements, Sample, Samples, expressions, judge_check
from reconciler.gates.values import Finding, Reason, compare, is_static, number

__all__ = [
    "Asked",
    "Expressions",
    "Finding",
    "Measured",
    "Measurements",
    "Reason",
    "Sample",
    "Samples",
    "compare",
    "expressions",
    "is_static",
    "judge",
    "judge_check",
    "judge_trigger",
    "number",
    "threshold_of",
]
