"""A tour of what `make run` left running: `python examples/tour.py KUBECONFIG`.

Predictions as clients send them, through the gateways, and who answered: the server says so in its headers. It ends
with an error where the traffic does not go where the specs want it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from http.client import HTTPConnection
from math import sqrt
from time import sleep
from typing import Any, NamedTuple

from kubernetes import client, config
from sklearn.datasets import load_breast_cancer

STAGING, PRODUCTION = "staging", "acme-health"
REQUESTS = 1000
COPIED = 100
PREDICT = "/v1/screening/predict"


class Answer(NamedTuple):
    """What came back, and from whom."""

    body: Any
    variation: str
    build: str


class Caller:
    """A clinic: it sends one biopsy after the other over one connection."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(address, timeout=30)
        biopsy = load_breast_cancer(as_frame=True).data.head(1)
        self._body = biopsy.to_json(orient="split")

    def predict(self, **metadata: str) -> Answer:
        """One prediction; `metadata` are the headers by which audiences are told apart."""
        named = {key.replace("_", "-"): value for key, value in metadata.items()}
        headers = {"content-type": "application/json"} | named
        self._connection.request("POST", PREDICT, self._body, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise SystemExit(f"{PREDICT} answered {response.status}: {text}")
        return Answer(json.loads(text), response.headers["x-trueup-variation"], response.headers["x-trueup-build-id"])


def gateway(namespace: str) -> str:
    """host:port of the environment's gateway."""
    gateways = client.CustomObjectsApi()
    body = gateways.get_namespaced_custom_object("gateway.networking.k8s.io", "v1", namespace, "gateways", "trueup")
    return f"{body['status']['addresses'][0]['value']}:{body['spec']['listeners'][0]['port']}"


def copies(namespace: str, variation: str) -> int:
    """Requests that the pods of a variation have counted."""
    selector = f"trueup.dev/variation={variation},app.kubernetes.io/name=screening"
    total = 0.0
    for pod in client.CoreV1Api().list_namespaced_pod(namespace, label_selector=selector).items:
        connection = HTTPConnection(pod.status.pod_ip, 9090, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        total += sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("trueup_requests_total{"))
    return int(total)


def regions(address: str) -> None:
    """Two patients of two states reach two builds."""
    clinic = Caller(address)
    answers = {
        "California": clinic.predict(location="california"),
        "New York": clinic.predict(location="new-york", age="42"),
    }
    # The canary of California answers one request in ten there: ask until the variation that most people get does.
    while answers["California"].variation != "default":
        answers["California"] = clinic.predict(location="california")
    for place, answer in answers.items():
        print(f"{place:10}  {answer.body[0]}  from {answer.variation}, build {answer.build}")
    if answers["California"].build == answers["New York"].build:
        raise SystemExit("both were answered by the same build")


def canary(address: str) -> None:
    """The weights of an audience, counted."""
    clinic = Caller(address)
    shares = Counter(clinic.predict(location="california").variation for _ in range(REQUESTS))
    for variation, count in shares.most_common():
        print(f"California  {count / REQUESTS:6.1%} {variation}")
    # 90 to 10, and five standard deviations of chance.
    if abs(shares["sensitive"] - 0.1 * REQUESTS) > 5 * sqrt(REQUESTS * 0.1 * 0.9):
        raise SystemExit(f"sensitive should get a tenth, and got {shares['sensitive']} of {REQUESTS}")


def shadow(address: str) -> None:
    """Everybody's requests are copied to a variation whose answers nobody gets."""
    clinic, before = Caller(address), copies(STAGING, "edge")
    answered = Counter(clinic.predict().variation for _ in range(COPIED))
    for _ in range(50):  # nobody waits for a copy, so the last ones may still be on their way
        received = copies(STAGING, "edge") - before
        if received == COPIED:
            break
        sleep(0.1)
    print(f"staging     answered by {', '.join(answered)}; edge, its shadow, received {received} copies of {COPIED}")
    if "edge" in answered or received != COPIED:
        raise SystemExit("a shadow gets every copy, and answers nobody")


def main() -> None:
    """The tour."""
    config.load_kube_config(sys.argv[1])
    production, staging = gateway(PRODUCTION), gateway(STAGING)
    print(f"production  http://{production}{PREDICT}")
    print(f"staging     http://{staging}{PREDICT}")
    regions(production)
    canary(production)
    shadow(staging)


if __name__ == "__main__":
    main()
