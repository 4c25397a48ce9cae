"""Audiences in a real Envoy: a rendered route sends each request where the evaluator says that it belongs.

Specs and requests are drawn, as wild as the language and HTTP allow, and each model is routed in both modes. With
TRUEUP_TEST_FULL=1 many more are drawn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from renderers import routing
from renderers.catalog import Placed
from renderers.manifest import Manifest
from renderers.notes import Refused
from schemas.audience import Audience
from schemas.matching import request_of, resolve
from tests.contract.routed import Answer, Lines, Request, Routed
from tests.unit.renderers.made import NO_FACTS, environment
from tests.unit.renderers.made_serving import audience, header, serving, variation

FULL = bool(os.environ.get("TRUEUP_TEST_FULL"))
#: Of each some 16 models and 150 requests.
EXAMPLES = 200 if FULL else 15

NOBODY = 404

# --- what is drawn -----------------------------------------------------------------------------------------------

#: Header names, with the signs that HTTP allows in them.
KEYS = ["k", "j", "city-1", "a.b_c", "x!#$%&'*+^`|~"]
#: Few letters, so that values meet; and what numbers look like to somebody.
TEXTS = st.text("ab1.-", min_size=1, max_size=4) | st.sampled_from(
    ["a b", "a  b", "a,b", "(a)", "[a-b]*", "a\\b", "x" * 40]
)
NUMBERS = st.from_regex(r"[+-]?[0-9]{1,3}(\.[0-9]{1,2})?", fullmatch=True)
REGEXES = st.sampled_from(["a+", "[ab]*1?", "(a|b)+", r"\d+(\.\d+)?", "a.*|b", "..", "[^a]+", "(?i)AB?", r"\w+"])
ODD = [
    b"",
    b"1.0",
    b"+1",
    b"01",
    b"1e3",
    b".5",
    b"5.",
    b"--1",
    b"nan",
    b"0x10",
    b"-0",
    b"1,2",
    b"18",
    b"17.99",
    b"1" * 60,
]
WIRE = st.one_of(
    TEXTS.map(str.encode),
    NUMBERS.map(str.encode),
    st.sampled_from(ODD),
    # Any octets that HTTP allows: UTF-8, what is none, tabs.
    st.lists(st.sampled_from([b"a", b"b", b"1", b" ", b"\t", b",", b"\xe9", b"\xc3\xa9", b"\xff"]), max_size=5).map(
        b"".join
    ),
)


def unary(operator: str) -> str:
    return f"UNARY_OPERATOR_TYPE_{operator}_MATCH"


@st.composite
def ranges(draw: Any) -> dict[str, Any]:
    low, high = sorted([draw(NUMBERS), draw(NUMBERS)], key=float)
    made = {
        "key": draw(st.sampled_from(KEYS)),
        "operator": "BINARY_OPERATOR_TYPE_RANGE_MATCH",
        "negate": draw(st.booleans()),
    }
    return made | {"first_operand": low, "second_operand": high}


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from(KEYS) | st.sampled_from(KEYS).map(str.upper)
    texts = st.sampled_from([unary(name) for name in ("EXACT", "PREFIX", "SUFFIX", "CONTAINS")])
    numeric = st.sampled_from(["LESS_THAN", "LESS_OR_EQUAL", "GREATER_THAN", "GREATER_OR_EQUAL"])
    lists = st.lists(TEXTS, min_size=1, max_size=7, unique=True)

    def made(operators: st.SearchStrategy[str], operands: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.builds(lambda k, o, v, n: header(k, v, o, negate=n), keys, operators, operands, st.booleans())

    presence = st.sampled_from([unary("PRESENT"), "ABSENT"])
    return st.one_of(
        made(texts, TEXTS),
        made(numeric, NUMBERS),
        made(st.just("IN"), lists),
        made(st.just(unary("SAFE_REGEX")), REGEXES),
        st.builds(lambda key, operator: header(key, None, operator), keys, presence),
        ranges(),
    )


@st.composite
def audiences(draw: Any) -> list[Placed[Audience]]:
    """In an order that has nothing to do with their headers."""
    count = draw(st.integers(1, 4))
    found = []
    for number in range(count):
        drawn = draw(st.lists(conditions(), max_size=3))
        of_two = [condition for condition in drawn if "first_operand" in condition]
        of_one = [condition for condition in drawn if "first_operand" not in condition]
        spec = {"unary": of_one, "binary": of_two}
        found.append(audience(f"a{number}", priority=number, conditions=spec))
    return draw(st.permutations(found))


@st.composite
def lines(draw: Any) -> Lines:
    """Of one request: names in any case, some of them twice, some headers missing."""
    found = []
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=5)):
        name = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in key)
        found.append((name.encode(), draw(st.sampled_from([b"", b" ", b"\t"])) + draw(WIRE)))
    if draw(st.booleans()):
        found.append((b"X-Trueup-Audience", draw(st.sampled_from([b"a0", b"a1", b"-", b""]))))
    return found


class Drawn(NamedTuple):
    audiences: list[Placed[Audience]]
    everybody: bool  #: somebody answers those who are in none
    requests: list[Lines]


DRAWN = st.lists(
    st.builds(Drawn, audiences(), st.booleans(), st.lists(lines(), min_size=8, max_size=16)), min_size=4, max_size=12
)

# --- what is made of it ------------------------------------------------------------------------------------------

#: Nobody is in it, and no gateway can tell that, so that a model that has it needs the resolver.
NEVER = audience("never", header("no-one", None, "ABSENT"), header("sends", None, unary("PRESENT")), priority=9)


def routed(model: str, drawn: Drawn, *more: Placed[Audience]) -> tuple[list[Manifest], str] | None:
    """The manifests of a model and its routing mode; None where the specs are refused."""
    placed = (*drawn.audiences, *more)
    taking: list[dict[str, Any]] = [{"audience": one.spec.name, "weight": 100} for one in placed]
    made = variation(model=model, traffic=[*taking, *([{}] if drawn.everybody else [])])
    unit = serving(made, audiences=placed, where=environment(), model=model)
    try:
        manifests = routing.render(unit, NO_FACTS)
    except Refused as refused:
        if refused.rule == "audience/contradiction":
            return None
        raise
    (mode,) = [note.text for note in routing.notes(unit, NO_FACTS) if note.text.startswith("routing mode")]
    return [*manifests, *services(manifests)], mode.split(": ")[1].split(",")[0]


def services(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The Services that routes name, without what would be served."""
    known = {manifest.id.name for manifest in manifests if manifest.id.kind == "Service"}
    for route in [manifest for manifest in manifests if manifest.id.kind == "HTTPRoute"]:
        for rule in route.body["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend["name"] not in known:
                    known.add(backend["name"])
                    metadata = {"name": backend["name"], "namespace": route.id.namespace}
                    spec = {"ports": [{"name": "http", "port": backend["port"]}]}
                    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
                    identity = route.id._replace(api_version="v1", kind="Service", name=backend["name"])
                    yield Manifest(identity, body, route.origin, route.environment)


def expected(drawn: Drawn, of_request: Lines) -> Answer:
    belongs_to = resolve([one.spec for one in drawn.audiences], request_of(of_request))
    if belongs_to is None and not drawn.everybody:
        return Answer(NOBODY, "")
    return Answer(200, belongs_to or "")


# --- the tests ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    made = Routed(tmp_path_factory.mktemp("envoy"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """How many models were routed in each mode, and how many requests were sent."""
    found: Counter[str] = Counter()
    yield found
    print(f"\nin Envoy: {dict(found)}")
    assert found["native"] > found["resolver"] / 5  # or the test would be about the resolver alone


@pytest.mark.timeout(1800 if FULL else 120)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
    database=None,
)
@given(DRAWN)
def test_every_request_gets_to_the_audience_that_it_belongs_to(
    gateway: Routed, counts: Counter[str], models: list[Drawn]
) -> None:
    manifests: list[Manifest] = []
    asked: list[tuple[Drawn, str, Request]] = []
    for number, drawn in enumerate(models):
        for name, more in ((f"plain-{number}", ()), (f"resolved-{number}", (NEVER,))):
            made = routed(name, drawn, *more)
            if made is None:
                continue
            manifests += made[0]
            counts[made[1]] += 1
            path = f"/v1/{name}/predict" if number % 2 else f"/v2/models/{name}/infer"
            asked += [(drawn, made[1], Request(path, one)) for one in drawn.requests]
            assert more == () or made[1] == "resolver"
    if not manifests:
        return
    gateway.route(manifests)

    answers = gateway.ask([request for _, _, request in asked])

    counts["requests"] += len(answers)
    for (drawn, mode, request), answer in zip(asked, answers, strict=True):
        said = answer._replace(body="") if answer.status == NOBODY else answer
        specs = [one.spec for one in drawn.audiences]
        assert said == expected(drawn, request.lines), (mode, request, specs)
