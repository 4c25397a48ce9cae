"""The embedded gateway, with a real Envoy and real servers behind it: what an HTTPRoute says is what happens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from embedded.gateway.world import CLASS, CLASSES, GATEWAYS, ROUTES, SECURITY_POLICIES, TRAFFIC_POLICIES
from tests.contract.client import eventually
from tests.contract.plane import (
    PORT,
    Plane,
    Server,
    Space,
    backend,
    exact,
    header,
    http_listener,
    prefix,
    rule,
)

Object = dict[str, Any]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    plane = Plane(tmp_path_factory.mktemp("plane") / "data")
    yield plane
    log = (plane.data / "gateway" / "envoy.log").read_text()
    plane.stop()
    assert "eprecated" not in log


@pytest.fixture(scope="module")
def servers(plane: Plane) -> Iterator[tuple[Server, Server]]:
    both = Server("a", plane.subnet.pod("a")), Server("b", plane.subnet.pod("b"))
    yield both
    for server in both:
        server.kill()


@pytest.fixture
def space(plane: Plane, servers: tuple[Server, Server]) -> Iterator[Space]:
    """A namespace with a Gateway, and the Services a and b."""
    space = Space(plane)
    for server in servers:
        space.service(server.name, server)
    yield space
    space.close()
    plane.delete(GATEWAYS, space.name, "gate")
    plane.delete("namespaces", "", space.name)


A, B = backend("a"), backend("b")


# --- matching ----------------------------------------------------------------------------------------------------


def test_the_more_specific_match_wins_whatever_the_order(space: Space) -> None:
    method: Object = {"method": "POST"}
    for path, low, high in [
        ("/exact", prefix("/exact"), exact("/exact")),
        ("/long/er", prefix("/long"), prefix("/long/er")),
        ("/method", prefix("/method"), prefix("/method", **method)),
        ("/head", prefix("/head"), prefix("/head", headers=[header("x-k", "1")])),
        ("/query", prefix("/query"), prefix("/query", queryParams=[header("q", "1")])),
        (
            "/more",
            prefix("/more", headers=[header("x-k", "1")]),
            prefix(
                "/more", headers=[header("x-k", "1", "RegularExpression"), header("x-j", ".*", "RegularExpression")]
            ),
        ),
        ("/first", prefix("/first", headers=[header("x-j", "2")]), prefix("/f")),
        ("/meth-head", prefix("/meth-head", headers=[header("x-k", "1")]), prefix("/meth-head", **method)),
    ]:
        low_wins = path == "/first"  # the path decides before the headers
        space.route("r", rule(A, matches=[low]), rule(B, matches=[high]))
        said = space.get(f"{path}?q=1", {"x-k": "1", "x-j": "2"}, method="POST")
        assert said.name == ("a" if low_wins else "b"), path


def test_of_equal_matches_the_first_rule_wins(space: Space) -> None:
    one, other = (
        prefix("/", headers=[header("x-k", "1")]),
        prefix("/", headers=[header("x-j", ".+", "RegularExpression")]),
    )
    space.route("r", rule(A, matches=[one]), rule(B, matches=[other]))
    assert space.get("/", {"x-k": "1", "x-j": "2"}).name == "a"
    space.route("r", rule(B, matches=[other]), rule(A, matches=[one]))
    assert space.get("/", {"x-k": "1", "x-j": "2"}).name == "b"


def test_of_equal_routes_the_one_that_comes_first_by_name_wins_if_they_are_of_one_age(space: Space) -> None:
    space.route("r2", rule(B))
    space.route("r1", rule(A))
    ages = [space.plane.get(ROUTES, space.name, name)["metadata"]["creationTimestamp"] for name in ("r1", "r2")]
    assert space.get("/").name == ("a" if ages[0] <= ages[1] else "b")


def test_a_prefix_is_whole_parts_of_a_path(space: Space) -> None:
    space.route("r", rule(A, matches=[prefix("/shop/")]))
    assert [space.get(path).status for path in ("/shop", "/shop/", "/shop/cart", "/shopping")] == [200, 200, 200, 404]


def test_an_expression_is_about_the_whole_value(space: Space) -> None:
    age = header("age", "(1[89]|[2-9][0-9])", "RegularExpression")
    space.route("r", rule(A, matches=[prefix("/", headers=[age])]))
    values = {"18": 200, "118": 404, "181": 404, "99": 200, "": 404, " 20 ": 200}
    assert {value: space.get("/", {"age": value}).status for value in values} == values
    assert space.get("/").status == 404


def test_an_expression_may_be_large(space: Space) -> None:
    words = [f"{number:04}-some-city-of-a-long-list" for number in range(100)]
    space.route("r", rule(A, matches=[prefix("/", headers=[header("city", "|".join(words), "RegularExpression")])]))
    assert space.get("/", {"city": words[99]}).status == 200
    assert space.get("/", {"city": words[99] + "s"}).status == 404


def test_header_names_have_no_case_and_values_do(space: Space) -> None:
    space.route("r", rule(A, matches=[prefix("/", headers=[header("X-Place", "Rome"), header("x-place", "no")])]))
    assert space.get("/", {"x-pLACE": "Rome"}).status == 200  # the second of the two in the route is ignored
    assert space.get("/", {"x-place": "rome"}).status == 404


def test_a_header_that_is_sent_twice_is_one_value_with_a_comma(space: Space) -> None:
    both = prefix("/", headers=[header("x-place", "paris,rome")])
    space.route("r", rule(A, matches=[both]), rule(B, matches=[prefix("/", headers=[header("x-place", "rome")])]))
    connection = space.connect()
    connection.putrequest("GET", "/")
    connection.putheader("X-Place", "paris")
    connection.putheader("x-place", "rome")
    connection.endheaders()
    with connection.getresponse() as response:
        assert json.loads(response.read())["name"] == "a"
    connection.close()


def test_underscores_in_header_names_arrive(space: Space) -> None:
    space.route("r", rule(A, matches=[prefix("/", headers=[header("user_id", "1")])]))
    assert space.get("/", {"user_id": "1"}).told["headers"]["user_id"] == "1"


def test_paths_are_normal_before_they_match(space: Space) -> None:
    space.route("r", rule(A, matches=[exact("/v1/m/predict")]))
    assert [space.get(path).status for path in ("/v1//m/predict", "/v1/x/../m/./predict", "/v1/m/predict/")] == [
        200,
        200,
        404,
    ]


# --- hostnames and listeners -------------------------------------------------------------------------------------


def test_the_closest_hostname_wins_and_others_follow(space: Space) -> None:
    space.route("any", rule(A, matches=[prefix("/any")]))
    space.route("wild", rule(A, matches=[prefix("/wild"), prefix("/both")]), hostnames=["*.models.test"])
    space.route("exact", rule(B, matches=[prefix("/exact"), prefix("/both")]), hostnames=["one.models.test"])

    def answer(host: str, path: str) -> str:
        return space.get(path, {"host": host}).name

    assert answer("one.models.test", "/both") == "b"
    assert answer("ONE.models.test:8080", "/both") == "b"
    assert answer("two.models.test", "/both") == "a"
    assert answer("one.models.test", "/wild") == "a"
    assert answer("one.models.test", "/any") == "a"
    assert answer("two.models.test", "/exact") == answer("models.test", "/both") == ""


def test_a_route_shares_the_hostnames_that_a_listener_has(space: Space) -> None:
    space.gateway(
        http_listener("http", hostname="*.models.test"), http_listener("other", PORT, hostname="b.models.test")
    )
    space.route("no", rule(A), hostnames=["elsewhere.test"])
    assert space.condition(ROUTES, "no", "Accepted")["reason"] == "NoMatchingListenerHostname"
    space.route(
        "yes", rule(A), hostnames=["a.models.test", "elsewhere.test"], parents=[{"name": "gate", "sectionName": "http"}]
    )
    assert space.condition(ROUTES, "yes", "Accepted")["status"] == "True"
    assert space.get("/", {"host": "a.models.test"}).status == 200
    assert space.get("/", {"host": "elsewhere.test"}).status == 404
    space.route("yes", rule(A), parents=[{"name": "gate", "sectionName": "http"}])
    assert space.get("/", {"host": "c.models.test"}).status == 200
    assert space.get("/", {"host": "b.models.test"}).status == 404  # it belongs to the listener that has no route


def test_a_listener_says_whose_routes_it_takes(space: Space) -> None:
    other = Space(space.plane)
    parent = [{"name": "gate", "namespace": space.name}]
    other.route("r", rule(A), parents=parent)
    assert other.condition(ROUTES, "r", "Accepted")["reason"] == "NotAllowedByListeners"
    selector = {"matchLabels": {"kubernetes.io/metadata.name": other.name}}
    space.gateway(http_listener("http", allowedRoutes={"namespaces": {"from": "Selector", "selector": selector}}))
    eventually(lambda: other.condition(ROUTES, "r", "Accepted")["status"] == "True")
    space.gateway(http_listener("http", allowedRoutes={"namespaces": {"from": "All"}}))
    eventually(lambda: other.condition(ROUTES, "r", "Accepted")["status"] == "True")
    other.route("r", rule(A), parents=[{"name": "gate", "namespace": space.name, "sectionName": "nowhere"}])
    assert other.condition(ROUTES, "r", "Accepted")["reason"] == "NoMatchingParent"
    space.plane.delete(ROUTES, other.name, "r")


def test_what_is_no_http_or_whose_port_is_taken_is_said_and_harms_nobody(space: Space) -> None:
    import socket

    space.route("r", rule(A))
    with socket.create_server((space.address, 9191)):
        secure = {"name": "tls", "port": 8443, "protocol": "HTTPS", "tls": {"options": {"a": "b"}}}
        space.gateway(http_listener("http"), secure, http_listener("taken", 9191))

        def said(name: str, kind: str) -> Object:
            listeners = space.plane.get(GATEWAYS, space.name, "gate")["status"]["listeners"]
            found = [one for each in listeners if each["name"] == name for one in each["conditions"]]
            return next((one for one in found if one["type"] == kind), {})

        eventually(lambda: "ddress already in use" in said("taken", "Programmed").get("message", ""))
        assert said("tls", "Accepted")["reason"] == "UnsupportedProtocol"
        assert said("http", "Programmed")["status"] == "True"
        assert space.condition(GATEWAYS, "gate", "Accepted")["reason"] == "ListenersNotValid"
        assert space.get("/").status == 200
        space.route("late", rule(B, matches=[prefix("/late")]))
        assert space.get("/late").name == "b"
    eventually(lambda: said("taken", "Programmed")["status"] == "True")


def test_a_gateway_and_its_class_say_what_they_are(space: Space) -> None:
    space.route("r", rule(A))
    (listener,) = space.plane.get(GATEWAYS, space.name, "gate")["status"]["listeners"]
    assert listener["attachedRoutes"] == 1
    assert listener["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]
    found = space.plane.get(CLASSES, "", CLASS)
    assert found["status"]["conditions"][0]["status"] == "True"
    assert found["spec"]["controllerName"] == "trueup.dev/embedded"
    space.plane.delete(ROUTES, space.name, "r")
    eventually(lambda: space.plane.get(GATEWAYS, space.name, "gate")["status"]["listeners"][0]["attachedRoutes"] == 0)


def test_nothing_is_written_when_nothing_changed(space: Space) -> None:
    space.route("r", rule(A))
    before = [space.plane.get(*one)["metadata"]["resourceVersion"] for one in _objects(space)]
    space.plane.write("namespaces", {"metadata": {"name": f"{space.name}-x"}})
    space.endpoints("b")
    space.get("/")
    assert [space.plane.get(*one)["metadata"]["resourceVersion"] for one in _objects(space)] == before


def _objects(space: Space) -> list[tuple[str, str, str]]:
    return [(ROUTES, space.name, "r"), (GATEWAYS, space.name, "gate"), (CLASSES, "", CLASS)]


# --- backends ----------------------------------------------------------------------------------------------------


def test_nobody_ready_is_503_nothing_there_is_500_and_no_route_is_404(
    space: Space, servers: tuple[Server, Server]
) -> None:
    space.service("none")
    space.service("unready", servers[0], ready=False)
    space.service("ending", servers[0], ready=False, serving=True, terminating=True)
    space.route(
        "r",
        rule(backend("none"), matches=[prefix("/none")]),
        rule(backend("unready"), matches=[prefix("/unready")]),
        rule(backend("ending"), matches=[prefix("/ending")]),
        rule(backend("missing"), matches=[prefix("/missing")]),
        rule(backend("a", 0), matches=[prefix("/zero")]),
    )
    paths = ("/none", "/unready", "/ending", "/missing", "/zero", "/other")
    assert [space.get(path).status for path in paths] == [503, 503, 200, 500, 500, 404]
    refs = space.condition(ROUTES, "r", "ResolvedRefs")
    assert (refs["status"], refs["reason"]) == ("False", "BackendNotFound")
    assert f"there is no Service {space.name}/missing" in refs["message"]
    space.service("missing", servers[1])
    eventually(lambda: space.condition(ROUTES, "r", "ResolvedRefs")["status"] == "True")
    assert space.get("/missing").name == "b"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"name": "a", "port": 80, "namespace": "default"}, "RefNotPermitted"),
        ({"name": "a", "port": 81}, "BackendNotFound"),
        ({"name": "a", "port": 80, "kind": "Widget", "group": "example.com"}, "InvalidKind"),
    ],
)
def test_the_share_of_a_backend_that_cannot_be_is_answered_with_500(space: Space, wrong: Object, reason: str) -> None:
    space.route("r", rule(A, {"weight": 1, **wrong}))
    counted = Counter(space.get("/").status for _ in range(400))
    assert set(counted) == {200, 500}
    assert 140 < counted[500] < 260
    assert space.condition(ROUTES, "r", "ResolvedRefs")["reason"] == reason
    assert space.condition(ROUTES, "r", "Accepted")["status"] == "True"


def test_weights_are_shares(space: Space) -> None:
    space.route("r", rule(backend("a", 9000), backend("b", 1000)))
    counted = Counter(space.get("/").name for _ in range(3000))
    assert 220 < counted["b"] < 380  # 300 are expected, and 16 are one standard deviation
    space.route("r", rule(backend("a", 0), backend("b", 1)))
    assert {space.get("/").name for _ in range(50)} == {"b"}


def test_a_shadow_gets_its_percent_and_nobody_notices(space: Space, servers: tuple[Server, Server]) -> None:
    third = Server("c", space.plane.subnet.pod("c"))
    space.service("c", third)
    half: Object = {"type": "RequestMirror", "requestMirror": {"backendRef": B, "percent": 50}}
    tenth: Object = {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": backend("c"), "fraction": {"numerator": 1, "denominator": 10}},
    }
    for one in (half, tenth):
        del one["requestMirror"]["backendRef"]  # a mirror has no weight
    half["requestMirror"]["backendRef"] = {"name": "b", "port": 80}
    tenth["requestMirror"]["backendRef"] = {"name": "c", "port": 80}
    space.route("r", rule(A, filters=[half, tenth]))
    before = servers[1].count()
    assert {space.get("/", {"host": "models.test"}, method="POST", body=b"x" * 1000).name for _ in range(600)} == {"a"}
    eventually(lambda: servers[1].count() - before > 240)
    assert 240 < servers[1].count() - before < 360
    assert 30 < third.count() < 95
    third.kill()
    assert {space.get("/").status for _ in range(50)} == {200}


# --- filters and timeouts ----------------------------------------------------------------------------------------


def test_headers_are_changed_in_both_directions(space: Space) -> None:
    change = {
        "set": [{"name": "x-set", "value": "100%"}],
        "add": [{"name": "x-add", "value": "%REQ(host)%"}],
        "remove": ["x-gone"],
    }
    space.route(
        "r",
        rule(
            A,
            filters=[
                {"type": "RequestHeaderModifier", "requestHeaderModifier": change},
                {
                    "type": "ResponseHeaderModifier",
                    "responseHeaderModifier": {"set": [{"name": "x-more", "value": "1"}]},
                },
            ],
        ),
    )
    said = space.get("/", {"x-set": "0", "x-add": "first", "x-gone": "here"})
    seen = said.told["headers"]
    assert (seen["x-set"], seen["x-add"]) == ("100%", "first, %REQ(host)%")
    assert "x-gone" not in seen
    assert said.headers["x-more"] == "1"


def test_a_backend_may_have_filters_of_its_own(space: Space) -> None:
    change = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-set", "value": "mine"}]}}
    space.route("r", rule(backend("a", filters=[change])))
    assert space.get("/").told["headers"]["x-set"] == "mine"


@pytest.mark.parametrize(
    ("matched", "replacement", "sent", "arrives"),
    [
        ("/shop", "/", "/shop/cart?a=1", "/cart?a=1"),
        ("/shop", "/", "/shop", "/"),
        ("/shop/", "/store/", "/shop/cart", "/store/cart"),
        ("/", "/v2", "/cart", "/v2/cart"),
        ("/shop", "/a\\1b", "/shop/x", "/a\\1b/x"),
    ],
)
def test_a_prefix_is_replaced(space: Space, matched: str, replacement: str, sent: str, arrives: str) -> None:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": replacement}
    change = {"type": "URLRewrite", "urlRewrite": {"hostname": "other.test", "path": path}}
    space.route("r", rule(A, matches=[prefix(matched)], filters=[change]))
    told = space.get(sent).told
    assert (told["path"], told["headers"]["host"]) == (arrives, "other.test")


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        ({"scheme": "https"}, "https://{address}:443/shop/cart?a=1"),
        ({"hostname": "other.test"}, "http://other.test:8080/shop/cart?a=1"),
        ({"hostname": "other.test", "scheme": "https"}, "https://other.test/shop/cart?a=1"),
        ({"hostname": "other.test", "port": 90}, "http://other.test:90/shop/cart?a=1"),
        ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}, "http://{address}:8080/x?a=1"),
        (
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}},
            "http://{address}:8080/x/cart?a=1",
        ),
    ],
)
def test_a_redirect_says_where(space: Space, redirect: Object, location: str) -> None:
    one = {"type": "RequestRedirect", "requestRedirect": {"statusCode": 301, **redirect}}
    space.route("r", rule(matches=[prefix("/shop")], filters=[one]))
    said = space.get("/shop/cart?a=1")
    assert (said.status, said.headers["location"]) == (301, location.format(address=space.address))


def test_a_filter_that_is_not_supported_is_not_skipped(space: Space) -> None:
    space.route("r", rule(A, filters=[{"type": "CORS", "cors": {"allowOrigins": ["*"]}}]))
    assert space.get("/").status == 500


def test_a_request_that_takes_too_long_is_answered_with_504(space: Space) -> None:
    space.route(
        "r",
        rule(A, matches=[prefix("/whole")], timeouts={"request": "100ms"}),
        rule(A, matches=[prefix("/once")], timeouts={"request": "5s", "backendRequest": "100ms"}),
        rule(A, matches=[prefix("/none")], timeouts={"request": "0s"}),
        rule(A, matches=[prefix("/long")], timeouts={"request": "10s"}),
    )
    waiting = {"x-wait": "0.3"}
    assert [space.get(path, waiting).status for path in ("/whole", "/once", "/none", "/long")] == [504, 504, 200, 200]


def test_a_model_that_answers_with_an_error_is_asked_once(space: Space, servers: tuple[Server, Server]) -> None:
    space.route("r", rule(A))
    before = servers[0].count()
    steering = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3", "x-answer": "503"}
    assert space.get("/", steering).status == 503
    assert servers[0].count() == before + 1


# --- what every request has --------------------------------------------------------------------------------------


def test_ids_are_passed_on_or_made(space: Space) -> None:
    space.route("r", rule(A))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    said = space.get("/", {"x-request-id": "mine", "traceparent": trace})
    assert (said.told["headers"]["x-request-id"], said.told["headers"]["traceparent"]) == ("mine", trace)
    assert said.headers["x-request-id"] == "mine"
    seen = [space.get("/").told["headers"] for _ in range(2)]
    assert seen[0]["x-request-id"] != seen[1]["x-request-id"]
    assert "traceparent" not in seen[0], (
        "the server makes one: here, it would cost each request a tenth of a millisecond"
    )
    assert not [name for name in seen[0] if name.startswith(("x-trueup-", "x-envoy-"))]


def test_answers_do_not_say_which_server_it_was(space: Space) -> None:
    space.route("r", rule(A))
    said = space.get("/")
    assert said.headers["server"] == "trueup"
    assert not [name for name in said.headers if name.startswith("x-envoy")]


def test_who_says_to_be_in_an_audience_is_not_believed(space: Space) -> None:
    west = header("x-trueup-audience", "west")
    space.route("r", rule(B, matches=[prefix("/", headers=[west])]), rule(A))
    said = space.get("/", {"X-Trueup-Audience": "west"})
    assert said.name == "a"
    assert "x-trueup-audience" not in said.told["headers"]


def test_the_clients_of_the_platform_may_ask_who_this_is(space: Space) -> None:
    path = "/ui/api/v1/system/auth/screen/footer"
    space.route("r", rule(A, matches=[prefix("/v1")]))
    said = space.get(path)
    assert (said.status, json.loads(said.body)) == (200, {"serverId": "trueup"})
    assert said.headers["content-type"] == "application/json"
    assert space.get(path, method="POST").status == 404
    space.route("r", rule(A))
    assert space.get(path).name == "a"


def test_what_is_too_long_is_refused(space: Space) -> None:
    space.route("r", rule(A))
    assert space.get("/", {"x-long": "x" * 100_000}).status == 431
    space.close()
    space._connection = None
    assert space.get("/", {f"x-{number}": "1" for number in range(200)}).status == 431


def test_large_bodies_pass(space: Space) -> None:
    space.route("r", rule(A))
    body = b"x" * (20 << 20)
    assert space.get("/", method="POST", body=body).told["headers"]["content-length"] == str(len(body))


# --- what cannot be ----------------------------------------------------------------------------------------------


def test_a_rule_that_cannot_be_is_dropped_alone_and_said(space: Space) -> None:
    bad = prefix("/bad", headers=[header("x-k", "(?=a)", "RegularExpression")])
    space.route("r", rule(A, matches=[bad], name="first"), rule(B, matches=[prefix("/good")]))
    said = space.condition(ROUTES, "r", "PartiallyInvalid")
    assert (said["status"], said["reason"]) == ("True", "UnsupportedValue")
    assert said["message"].startswith("Dropped Rule(s): rule first: '(?=a)' is no regular expression of RE2")
    assert [space.get(path).status for path in ("/bad", "/good")] == [404, 200]
    space.route("r", rule(A, matches=[bad]))
    assert space.condition(ROUTES, "r", "Accepted")["reason"] == "UnsupportedValue"
    space.route("r", rule(A))
    assert space.condition(ROUTES, "r", "PartiallyInvalid")["status"] == ""
    assert space.condition(ROUTES, "r", "Accepted")["status"] == "True"


def test_a_route_that_only_the_proxy_can_tell_to_be_wrong_harms_no_other(space: Space) -> None:
    space.route("good", rule(A, matches=[prefix("/good")]))
    wrong = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [""]}}
    space.route("wrong", rule(A, matches=[prefix("/wrong")], filters=[wrong]))
    said = space.condition(ROUTES, "wrong", "Accepted")
    assert (said["status"], said["reason"]) == ("False", "UnsupportedValue")
    assert said["message"].startswith("the proxy does not take it: ")
    space.route("good", rule(B, matches=[prefix("/good")]))
    assert space.condition(ROUTES, "good", "Accepted")["status"] == "True"
    assert [space.get(path).name for path in ("/good", "/wrong")] == ["b", ""]
    space.route("wrong", rule(A, matches=[prefix("/wrong")]))
    assert space.condition(ROUTES, "wrong", "Accepted")["status"] == "True"
    assert space.get("/wrong").name == "a"


# --- policies ----------------------------------------------------------------------------------------------------


@pytest.fixture
def resolver(space: Space) -> Iterator[Server]:
    server = Server("resolver", space.plane.subnet.pod(f"{space.name}-resolver"))
    space.service("resolver", server)
    yield server
    server.kill()


def test_a_resolver_says_who_a_user_is(space: Space, resolver: Server) -> None:
    west = header("x-trueup-audience", "west")
    space.route("r", rule(B, matches=[prefix("/", headers=[west])]), rule(A))
    space.route("other", rule(A, matches=[prefix("/other")]))
    space.security_policy("r", "resolver")
    assert space.condition(SECURITY_POLICIES, "r", "Accepted")["status"] == "True"
    assert space.get("/", {"x-user": "anna"}).name == "b"
    assert space.get("/", {"x-user": "ben"}).name == "a"
    said = space.get("/", {"x-trueup-audience": "west"})
    assert said.name == "a"
    assert "x-trueup-audience" not in said.told["headers"]
    asked = resolver.count()
    assert space.get("/other").name == "a"
    assert resolver.count() == asked


def test_a_resolver_is_asked_where_every_rule_has_an_audience(space: Space, resolver: Server) -> None:
    west, east = (header("x-trueup-audience", name) for name in ("west", "east"))
    space.route("r", rule(B, matches=[exact("/p", headers=[west])]), rule(A, matches=[exact("/p", headers=[east])]))
    space.security_policy("r", "resolver")
    assert [space.get("/p", {"x-user": user}).name for user in ("anna", "ben", "carl")] == ["b", "a", ""]
    assert space.get("/p", {"x-user": "carl"}).status == 404


def test_without_a_resolver_requests_pass_only_where_the_policy_wants_it(space: Space, resolver: Server) -> None:
    space.route("closed", rule(A, matches=[prefix("/closed")]))
    space.route("open", rule(A, matches=[prefix("/open")]))
    space.security_policy("closed", "resolver")
    space.security_policy("open", "resolver", failOpen=True)
    assert [space.get(path).status for path in ("/closed", "/open")] == [200, 200]
    space.endpoints("resolver")
    eventually(lambda: space.get("/closed").status == 503)
    assert space.get("/open").status == 200
    space.plane.delete("services", space.name, "resolver")
    eventually(lambda: space.get("/closed").status == 500)
    assert space.get("/open").status == 200
    # The proxy has it first; what it accepted is said afterwards.
    eventually(lambda: space.condition(SECURITY_POLICIES, "closed", "Accepted")["reason"] == "Invalid")


def test_users_stay_while_a_canary_grows_and_nobody_is_the_canary_of_every_model(space: Space) -> None:
    users = [f"user-{number}" for number in range(1200)]

    def canary(name: str, weight: int) -> set[str]:
        """Who gets b."""
        stable, grown = backend("a", 10_000 - weight), backend("b", weight)
        space.route(name, rule(stable, grown, matches=[prefix(f"/{name}")]))
        return {user for user in users if space.get(f"/{name}", {"x-user": user}).name == "b"}

    space.route("one", rule(A))
    space.route("two", rule(A))
    space.traffic_policy("one", "X-User")
    space.traffic_policy("two", "x-user")
    assert space.condition(TRAFFIC_POLICIES, "one", "Accepted")["status"] == "True"
    seen = [canary("one", weight) for weight in (1000, 2000, 5000)]
    assert seen[0] < seen[1] < seen[2]
    assert canary("one", 5000) == seen[2]
    shares = [len(found) / len(users) for found in seen]
    assert all(abs(share - wanted) < 0.06 for share, wanted in zip(shares, (0.1, 0.2, 0.5), strict=True)), shares
    both = len(canary("two", 5000) & seen[2]) / len(users)
    assert 0.19 < both < 0.31  # a quarter, if the one has nothing to do with the other
    for headers in ({}, {"x-user": ""}):
        counted = Counter(space.get("/one", headers).name for _ in range(300))
        assert 90 < counted["b"] < 210, headers
