"""Which name was probably meant by one that is none."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: What the platform calls a field in its other forms (command line, deploy and build files) -> what it is called here.
_ELSEWHERE = {
    "auto_scaling": "auto_scale_config",
    "cpus": "cpu_fraction",
    "deployment_process_timeout_limit": "deployment_timeout",
    "git_credentials_secret": "git_access_token_secret",
    "git_secret_ssh": "git_ssh_token_secret",
    "invert": "negate",
    "pods": "number_of_pods",
    "replicas": "number_of_pods",
    "timeout": "http_request_timeout_ms",
    "uri": "git_uri",
    "variation_protected_state": "protected",
    "workers": "number_of_http_server_workers",
}


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that was probably meant; "" for none."""
    by_lower = {name.lower().replace("-", "_"): name for name in candidates}
    lowered = word.lower().replace("-", "_")
    for known in (lowered, _ELSEWHERE.get(lowered)):
        if known in by_lower:
            return by_lower[known]
    if close := get_close_matches(lowered, by_lower, n=1):
        return by_lower[close[0]]
    holding = [low for low in by_lower if lowered in low] if len(lowered) > 2 else []
    return by_lower[holding[0]] if len(holding) == 1 else ""
