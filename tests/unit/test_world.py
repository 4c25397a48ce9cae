"""Where predictions are asked for, as the routes and gateways of a cluster say."""

from __future__ import annotations

from typing import Any

from reconciler import story
from reconciler.world import Asked, asked


def a_route(model: str = "churn", *, answers: bool = True, hostnames: tuple[str, ...] = (), **parent: str) -> Any:
    labels = {"app.kubernetes.io/name": model, "trueup.dev/environment": "prod"}
    spec: dict[str, Any] = {"parentRefs": [{"name": "trueup", **parent}]}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    notes = {"trueup.dev/answers": "true"} if answers else {}
    return {"metadata": {"name": model, "namespace": "shop", "labels": labels, "annotations": notes}, "spec": spec}


def a_gateway(*addresses: str, namespace: str = "shop") -> Any:
    http = {"name": "http", "protocol": "HTTP", "port": 8080}
    https = {"name": "tls", "protocol": "HTTPS", "port": 8443}
    return {
        "metadata": {"name": "trueup", "namespace": namespace},
        "spec": {"listeners": [http, https]},
        "status": {"addresses": [{"type": "IPAddress", "value": address} for address in addresses]},
    }


def test_a_model_is_asked_at_the_address_of_its_gateway() -> None:
    assert asked([a_route()], [a_gateway("10.0.0.1")]) == [
        Asked("prod", "churn", "http://10.0.0.1:8080/v1/churn/predict")
    ]


def test_the_listener_and_the_namespace_are_those_that_the_route_names() -> None:
    route = a_route(sectionName="tls", namespace="edge")

    assert asked([route], [a_gateway("10.0.0.2", namespace="edge"), a_gateway("10.0.0.1")]) == [
        Asked("prod", "churn", "https://10.0.0.2:8443/v1/churn/predict")
    ]


def test_a_gateway_without_an_address_and_a_route_that_shares_nothing_have_no_url() -> None:
    assert asked([a_route()], [a_gateway()]) == []
    assert asked([a_route()], []) == []
    assert asked([a_route(answers=False)], [a_gateway("10.0.0.1")]) == []


def test_status_shows_them_in_columns_with_the_host_that_the_gateway_wants() -> None:
    routes = [a_route("imaging", hostnames=("imaging.example.com",)), a_route()]

    assert list(story.predictions(asked(routes, [a_gateway("10.0.0.1")]))) == [
        "Predictions:",
        "  prod  churn    http://10.0.0.1:8080/v1/churn/predict",
        "  prod  imaging  http://10.0.0.1:8080/v1/imaging/predict  with the header Host: imaging.example.com",
    ]
