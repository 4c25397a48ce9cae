"""One HTTPRoute as routes of the proxy: matches, filters, backends. Pure.

A request takes the first route that matches, so the order is what makes it Gateway API: each route has a rank, and
those of all HTTPRoutes that share a hostname are sorted by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from embedded.gateway.backends import Backend, Ref, ref_of
from embedded.gateway.policies import Security
from embedded.gateway.world import Key, Object, Problem

#: The cluster that is not there: the proxy answers its share of a route with 500, as Gateway API wants it.
_INVALID = "invalid"

#: A path is Exact, a regular expression or a prefix, and preferred in this order.
_PATH_KINDS = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Rank(NamedTuple):
    """What is preferred is smaller. https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule"""

    path_kind: int
    path_length: int  #: negated, as are the counts
    any_method: bool
    headers: int
    query_params: int
    created: str
    key: Key
    rule: int
    match: int
    sticky: int = 0


class Compiled(NamedTuple):
    """An HTTPRoute, ready for the proxy."""

    routes: tuple[tuple[Rank, Object], ...]
    clusters: frozenset[str]
    dropped: tuple[str, ...]  #: rules that could not be taken, a sentence each
    problems: tuple[Problem, ...]  #: of references
    rules: int  #: how many there were


class Source(NamedTuple):
    """Everything that a compiled route depends on. `sticky` names the header whose value pins a user to a backend."""

    key: Key
    uid: str
    generation: int
    port: int
    backends: tuple[tuple[Ref, Backend], ...]
    security: Security | None
    sticky: str


class _Dropped(Exception):  # noqa: N818 - no error: it is told in the route's status
    """A rule that cannot be taken; the text is why."""


def references(route: Object, namespace: str) -> Iterator[Ref]:
    """Every backend that a route names, those of mirrors included."""
    for rule in route["spec"].get("rules", ()):
        for backend in rule.get("backendRefs", ()):
            yield ref_of(backend, namespace)
        for one in rule.get("filters", ()):
            if one["type"] == "RequestMirror":
                yield ref_of(one["requestMirror"]["backendRef"], namespace)


def compile_route(route: Object, source: Source) -> Compiled:
    """The routes of an HTTPRoute on a listener's port."""
    backends = dict(source.backends)
    found: list[tuple[Rank, Object]] = []
    dropped = []
    rules = route["spec"].get("rules", ())
    for number, rule in enumerate(rules):
        try:
            found += _rule(route, number, rule, source, backends)
        except _Dropped as why:
            dropped.append(f"rule {rule.get('name') or number}: {why}")
    found.sort(key=lambda item: item[0])
    problems = [backend.problem for _, backend in source.backends if backend.problem is not None]
    if source.security is not None and source.security.problem is not None:
        problems.append(source.security.problem)
    clusters = {backend.cluster for backend in backends.values() if backend.cluster}
    if source.security is not None and source.security.cluster:
        clusters.add(source.security.cluster)
    return Compiled(tuple(found), frozenset(clusters), tuple(dropped), tuple(dict.fromkeys(problems)), len(rules))


def _rule(
    route: Object, number: int, rule: Object, source: Source, backends: Mapping[Ref, Backend]
) -> Iterator[tuple[Rank, Object]]:
    if _CONTROL.search("".join(_texts(rule))):
        raise _Dropped("a value has control characters, which no header and no path may have")
    action = _action(rule, source, backends)
    common = _header_changes(rule.get("filters", ())) | _secured(source.security)
    for index, match in enumerate(rule.get("matches") or [{}]):
        path, rank = _path(match)
        headers, params = _headers(match), match.get("queryParams", ())
        method = match.get("method")
        place = Rank(
            *rank,
            method is None,
            -len(headers),
            -len(params),
            route["metadata"]["creationTimestamp"],
            source.key,
            number,
            index,
        )
        matcher = {
            **path,
            "headers": [_string_match(name, one) for name, one in headers.items()],
            "query_parameters": [_string_match(one["name"], one) for one in params],
        }
        if method is not None:
            matcher["headers"].append({"name": ":method", "string_match": {"exact": method}})
        made = {"match": matcher, **action, **common}
        if source.sticky and "weighted_clusters" in action.get("route", {}):
            yield place, _sticky(made, source.sticky, source.key)
        yield place._replace(sticky=1), made
        if source.security is not None and source.security.sets.intersection(headers):
            yield _unresolved(place, matcher, source.security)


# --- matches -----------------------------------------------------------------------------------------------------


def _path(match: Object) -> tuple[Object, tuple[int, int]]:
    path = match.get("path", {})
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    rank = (_PATH_KINDS[kind], -len(value))
    if kind == "Exact":
        return {"path": value}, rank
    if kind == "RegularExpression":
        return {"safe_regex": {"regex": _checked(value)}}, rank
    prefix = value.rstrip("/")
    return ({"path_separated_prefix": prefix} if prefix else {"prefix": "/"}), rank


def _headers(match: Object) -> dict[str, Object]:
    """By name in lower case; of two that differ in nothing else, the second must be ignored."""
    headers: dict[str, Object] = {}
    for header in match.get("headers", ()):
        headers.setdefault(header["name"].lower(), header)
    return headers


def _string_match(name: str, one: Object) -> Object:
    if one.get("type", "Exact") == "Exact":
        return {"name": name, "string_match": {"exact": one["value"]}}
    return {"name": name, "string_match": {"safe_regex": {"regex": _checked(one["value"])}}}


def _checked(pattern: str) -> str:
    """The pattern, if the proxy can compile it: one that it cannot would make it refuse every route."""
    import re2  # type: ignore[import-untyped]  # noqa: PLC0415 - 10 ms, and most gateways have no use for it

    options = re2.Options()
    options.log_errors = False  # to stderr
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        (reason,) = error.args
        text = reason.decode() if isinstance(reason, bytes) else reason
        raise _Dropped(f"{pattern!r} is no regular expression of RE2: {text}") from None
    return pattern


def _sticky(made: Object, header: str, key: Key) -> Object:
    """The route for users who say who they are: by a hash of that, so that each stays with one of the backends.

    The hash is salted with the route's name: otherwise the same users would be the canary of every model. A request
    without the header, or with an empty one, takes the next route and is spread at random: it would be one user
    otherwise, who has as many requests as all the others.
    """
    salted = {"pattern": {"regex": "^"}, "substitution": f"{key}|"}
    weighted = made["route"]["weighted_clusters"] | {"use_hash_policy": True}
    pinned = {"hash_policy": [{"header": {"header_name": header, "regex_rewrite": salted}}]}
    present = {"name": header, "string_match": {"safe_regex": {"regex": ".+"}}}
    return made | {
        "match": made["match"] | {"headers": [*made["match"]["headers"], present]},
        "route": made["route"] | pinned | {"weighted_clusters": weighted},
    }


def _unresolved(place: Rank, matcher: Object, security: Security) -> tuple[Rank, Object]:
    """A route for a request whose audience nobody has said yet, where no other one would ask.

    The service is asked on the route that a request takes at first, and sets the header that the right one matches.
    Where every route of a path matches that header there would be no first one. Answered is this one only if the
    service has not set it either.
    """
    headers = [one for one in matcher["headers"] if one["name"] not in security.sets]
    fewer = len(matcher["headers"]) - len(headers)
    late = place._replace(headers=place.headers + fewer, rule=1_000_000)
    return late, {"match": matcher | {"headers": headers}, "direct_response": {"status": 404}, **_secured(security)}


# --- what happens to a request -----------------------------------------------------------------------------------


def _action(rule: Object, source: Source, backends: Mapping[Ref, Backend]) -> Object:
    """What the proxy does; `{"direct_response": ...}` where Gateway API wants an error."""
    if source.security is not None and source.security.problem is not None:
        return _error(500, "the policy of this route names no service that could be asked")
    route: Object = {}
    for one in rule.get("filters", ()):
        match one["type"]:
            case "RequestHeaderModifier" | "ResponseHeaderModifier":
                pass
            case "RequestRedirect":
                return {"redirect": _redirect(one["requestRedirect"], rule, source.port)}
            case "URLRewrite":
                route |= _rewrite(one["urlRewrite"], rule)
            case "RequestMirror":
                backend = backends[ref_of(one["requestMirror"]["backendRef"], source.key.namespace)]
                if backend.cluster:
                    route.setdefault("request_mirror_policies", []).append(_mirror(one["requestMirror"], backend))
            case unsupported:
                # Not skipped: it may be what protects the backend.
                return _error(500, f"filter {unsupported} is not supported")
    shares = [
        (backends[ref_of(written, source.key.namespace)].cluster, written)
        for written in rule.get("backendRefs", ())
        if written.get("weight", 1)
    ]
    if not any(cluster for cluster, _ in shares):
        return _error(500, "no backend of this route can be used")
    if len(shares) == 1 and not shares[0][1].get("filters"):
        route["cluster"] = shares[0][0]
    else:
        route["weighted_clusters"] = {"clusters": [_share(cluster, written) for cluster, written in shares]}
        route["cluster_not_found_response_code"] = "INTERNAL_SERVER_ERROR"
    return {"route": route | _timeouts(rule.get("timeouts", {}))}


def _error(status: int, why: str) -> Object:
    return {"direct_response": {"status": status, "body": {"inline_string": why}}}


def _share(cluster: str, written: Object) -> Object:
    filters = written.get("filters", ())
    if any(one["type"] not in ("RequestHeaderModifier", "ResponseHeaderModifier") for one in filters):
        cluster = ""
    return {"name": cluster or _INVALID, "weight": written.get("weight", 1), **_header_changes(filters)}


def _mirror(written: Object, backend: Backend) -> Object:
    fraction = written.get("fraction", {"numerator": written.get("percent", 100)})
    share = fraction["numerator"] * 1_000_000 // fraction.get("denominator", 100)
    return {
        "cluster": backend.cluster,
        "runtime_fraction": {"default_value": {"numerator": share, "denominator": "MILLION"}},
        "disable_shadow_host_suffix_append": True,
    }


def _timeouts(timeouts: Object) -> Object:
    """No limit where none is given: the proxy's own one (15 s) is nobody's wish."""
    request = milliseconds(timeouts.get("request", "0s"))
    once = milliseconds(timeouts.get("backendRequest", "0s"))
    made: Object = {"timeout": _seconds(request), "idle_timeout": _seconds(max(request, _IDLE_MILLISECONDS))}
    if once and (not request or once < request):
        made["retry_policy"] = RETRY_POLICY | {"per_try_timeout": _seconds(once)}
    return made


#: After which a stream on which nothing happens is ended.
_IDLE_MILLISECONDS = 3_600_000

#: Another try only while no byte of the request can have reached a model: a prediction may cost something. It goes to
#: another endpoint than before, if there is one.
RETRY_POLICY: Object = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 4,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
    "retry_host_predicate": [
        {
            "name": "previous-hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 5,
}

_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def milliseconds(duration: str) -> int:
    """A duration of Gateway API (GEP-2257), like 1h30m or 500ms."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))


def _seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03d}s"


def _header_changes(filters: Any) -> Object:
    changes: Object = {}
    for one in filters:
        for kind, target in (("requestHeaderModifier", "request"), ("responseHeaderModifier", "response")):
            written = one.get(kind, {})
            added = [(header, "OVERWRITE_IF_EXISTS_OR_ADD") for header in written.get("set", ())]
            added += [(header, "APPEND_IF_EXISTS_OR_ADD") for header in written.get("add", ())]
            removed = list(written.get("remove", ()))
            for name in [header["name"] for header, _ in added] + removed:
                if name.lower() == "host" or name.startswith(":"):
                    raise _Dropped(f"header {name} cannot be changed by a filter: use URLRewrite for the hostname")
            if added:
                changes[f"{target}_headers_to_add"] = [
                    # To the proxy, a percent sign begins the name of something to fill in.
                    {
                        "header": {"key": header["name"], "value": header["value"].replace("%", "%%")},
                        "append_action": how,
                    }
                    for header, how in added
                ]
            if removed:
                changes[f"{target}_headers_to_remove"] = removed
    return changes


def _secured(security: Security | None) -> Object:
    """The filters of the listener are off; a route turns on the one that it wants."""
    if security is None or not security.filter:
        return {}
    on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
    return {"typed_per_filter_config": {security.filter: on}}


# --- other places ------------------------------------------------------------------------------------------------

_REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def _redirect(written: Object, rule: Object, port: int) -> Object:
    """Where no port is given it is the usual one of the scheme given, else the listener's."""
    scheme, hostname = written.get("scheme"), written.get("hostname")
    made: Object = {"response_code": _REDIRECTS[written.get("statusCode", 302)]}
    usual = {"http": 80, "https": 443}[scheme or "http"]
    target = written.get("port") or (usual if scheme else port)
    if scheme:
        made["scheme_redirect"] = scheme
    if hostname:
        made["host_redirect"] = hostname
    if target != usual or (not hostname and port != usual):  # the client's Host may name the listener's port
        made["port_redirect"] = target
    path = written.get("path", {})
    if path.get("type") == "ReplaceFullPath":
        made["path_redirect"] = path["replaceFullPath"]
    elif path:
        made["regex_rewrite"] = _other_prefix(path, rule)
    return made


def _rewrite(written: Object, rule: Object) -> Object:
    made: Object = {}
    if written.get("hostname"):
        made["host_rewrite_literal"] = written["hostname"]
    path = written.get("path", {})
    if path.get("type") == "ReplaceFullPath":
        made["regex_rewrite"] = _substitution("^/.*$", path["replaceFullPath"])
    elif path:
        made["regex_rewrite"] = _other_prefix(path, rule)
    return made


def _other_prefix(path: Object, rule: Object) -> Object:
    """Another prefix for the one that the rule's only match is about.

    A prefix is whole parts of a path: /shop replaced by / makes /shop/cart /cart, and /shop /.
    """
    (match,) = rule["matches"]
    prefix, replacement = re.escape(match["path"]["value"].rstrip("/")), path["replacePrefixMatch"].rstrip("/")
    return _substitution(f"^{prefix}", replacement) if replacement else _substitution(f"^{prefix}/*", "/")


def _substitution(pattern: str, replacement: str) -> Object:
    return {"pattern": {"regex": pattern}, "substitution": replacement.replace("\\", "\\\\")}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
