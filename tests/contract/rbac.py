"""What roles allow: requests on the Kubernetes API, judged by the roles of manifests as an API server judges them.

    request_of("PATCH", "/apis/apps/v1/namespaces/prod/deployments/churn?fieldManager=trueup")
    Roles.of(manifests, "trueup", "trueup-system").allows(request)

Only what grants is looked at: RBAC has no rule that denies. Impersonated groups, aggregated roles and other authorizers
are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

Body = Mapping[str, Any]

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
#: After /namespaces/NAME these are parts of the Namespace itself; anything else is a kind in it.
_OF_NAMESPACE = frozenset({"status", "finalize"})
#: An older way to say it: /api/v1/watch/pods.
_WATCH = "watch"


class Request(NamedTuple):
    """What is authorised. Either `resource` says what is asked for, or `path` does: "/version" is no resource.

    A Namespace has its own name as its namespace, as the API server sees it.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def __str__(self) -> str:
        what = (
            f"{self.resource}{f'/{self.subresource}' if self.subresource else ''}{f'.{self.group}' * bool(self.group)}"
        )
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.path or f'{what} {self.name}'.strip()}{where}"


def request_of(method: str, target: str) -> Request:
    """The request that an HTTP request is, by its method and its path with the query."""
    split = urlsplit(target)
    path = unquote(split.path)
    parts = path.strip("/").split("/")
    legacy = parts[0] == "api"
    prefix = 2 if legacy else 3  # /api/VERSION, /apis/GROUP/VERSION
    if parts[0] not in ("api", "apis") or len(parts) <= prefix:
        return Request(method.lower(), path=path)
    group, rest = "" if legacy else parts[1], parts[prefix:]
    verb = _VERBS.get(method.upper(), "")
    if rest[0] == _WATCH and len(rest) > 1:
        verb, rest = _WATCH, rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _OF_NAMESPACE:
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    if not name and verb == "get":
        query = parse_qs(split.query, keep_blank_values=True)
        # Whatever is not plainly false.
        watches = any(value.lower() not in ("false", "0") for value in query.get("watch", [])[:1])
        verb = "watch" if watches else "list"
        name = _exact_name(query.get("fieldSelector", [""])[0])
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Request(verb, group, resource, subresource, namespace, name)


def requests_of(method: str, target: str, status: int) -> list[Request]:
    """What has to be allowed for an HTTP request that was answered with this status.

    Server-side apply of an object that does not exist (201) is a patch and a creation, of that name.
    """
    request = request_of(method, target)
    return [request, request._replace(verb="create")] if (request.verb, status) == ("patch", 201) else [request]


def _exact_name(selector: str) -> str:
    for term in selector.split(","):
        key, equals, value = term.partition("=")
        if equals and key == "metadata.name":
            return value.removeprefix("=")
    return ""


class Rule(NamedTuple):
    """One rule of a role. `resources` are like "pods" and "pods/log". No `names`: all of them."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()

    @classmethod
    def of(cls, body: Body) -> Rule:
        """A rule as a manifest has it."""
        keys = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return cls(*(frozenset(body.get(key) or ()) for key in keys))

    def allows(self, request: Request) -> bool:
        """Whether it grants this, in the namespaces where it applies."""
        if not {request.verb, "*"} & self.verbs:
            return False
        if request.path:
            return any(_matches(url, request.path) for url in self.urls)
        whole = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
        resources = {whole, "*"} | ({f"*/{request.subresource}"} if request.subresource else set())
        is_named = not self.names or request.name in self.names
        return bool({request.group, "*"} & self.groups and resources & self.resources) and is_named


def _matches(url: str, path: str) -> bool:
    return url == path or (url.endswith("*") and path.startswith(url[:-1]))


#: What every account may do in every cluster: the roles system:basic-user, system:discovery, system:public-info-viewer.
EVERYBODY = (
    Rule(
        frozenset({"create"}),
        frozenset({"authorization.k8s.io"}),
        frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews"}),
    ),
    Rule(frozenset({"create"}), frozenset({"authentication.k8s.io"}), frozenset({"selfsubjectreviews"})),
    Rule(
        frozenset({"get"}),
        urls=frozenset(
            f"/{path}"
            for root in ("api", "apis", "openapi", "version")
            for path in (root, f"{root}/*" if root != "version" else "version/")
        )
        | {"/healthz", "/livez", "/readyz"},
    ),
)


class Grant(NamedTuple):
    """One verb on one resource, by a role of this name wherever it is bound. `names` is empty for all objects."""

    role: str
    verb: str
    group: str
    resource: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"{self.resource}{f'.{self.group}' * bool(self.group)}"
        return f"{self.role}: {self.verb} {what}{' ' * bool(self.names)}{', '.join(self.names)}"


class Bound(NamedTuple):
    """A rule where it applies: in a namespace, or everywhere (""). `role` is like "Role/trueup"."""

    role: str
    namespace: str
    rule: Rule

    def allows(self, request: Request) -> bool:
        """Whether it grants this. What applies in a namespace grants nothing that has none."""
        return self.namespace in ("", request.namespace) and self.rule.allows(request)


class Roles:
    """All that an account was given."""

    def __init__(self, bound: Iterable[Bound]) -> None:
        self.bound = tuple(bound)

    @classmethod
    def of(cls, manifests: Iterable[Body], account: str, namespace: str) -> Roles:
        """The roles that manifests bind to a ServiceAccount. A binding to a role that is not among them is an error."""
        bodies = [body for body in manifests if body["apiVersion"].startswith("rbac.authorization.k8s.io/")]
        rules = {_key(body): [Rule.of(rule) for rule in body.get("rules") or ()] for body in bodies}
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        bound = []
        for body in bodies:
            if body["kind"] in ("RoleBinding", "ClusterRoleBinding") and subject in (body.get("subjects") or ()):
                where = body["metadata"].get("namespace", "")
                kind, name = body["roleRef"]["kind"], body["roleRef"]["name"]
                found = rules[kind, where if kind == "Role" else "", name]
                bound += [Bound(f"{kind}/{name}", where, rule) for rule in found]
        return cls(bound)

    def allows(self, request: Request) -> bool:
        """Whether the account may do this."""
        given = any(bound.allows(request) for bound in self.bound)
        return given or any(rule.allows(request) for rule in EVERYBODY)

    def unused(self, requests: Iterable[Request]) -> list[Grant]:
        """What is granted and none of these requests needed, one verb of one resource at a time.

        A role of one name in several namespaces is one role: it is enough that it was needed in one of them.
        """
        made = list(requests)
        used: dict[Grant, bool] = {}
        for bound in self.bound:
            for grant, rule in _single(bound):
                narrow = bound._replace(rule=rule)
                used[grant] = used.get(grant, False) or any(narrow.allows(request) for request in made)
        return sorted(grant for grant, needed in used.items() if not needed)


def _key(body: Body) -> tuple[str, str, str]:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _single(bound: Bound) -> Iterable[tuple[Grant, Rule]]:
    """A rule, taken apart into its verbs and resources."""
    rule = bound.rule
    for verb in rule.verbs:
        for group in rule.groups:
            for resource in rule.resources:
                names = tuple(sorted(rule.names))
                one = rule._replace(verbs=frozenset({verb}), groups=frozenset({group}), resources=frozenset({resource}))
                yield Grant(bound.role, verb, group, resource, names), one
        for url in rule.urls:
            yield Grant(bound.role, verb, "", url), Rule(frozenset({verb}), urls=frozenset({url}))
