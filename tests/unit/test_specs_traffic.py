"""How the variations of a model share its requests. `▸` stands where the problem is shown."""

from __future__ import annotations

import pytest

from reconciler.specs import Loaded, parse

BASE = """\
api_version: v1
spec:
  environments: [{name: staging}, {name: production, promote_after: staging}]
  builds: [{name: b, model: m, git_uri: "https://example.com/models.git"}]
  audiences:
    - {name: everybody}
    - name: adults
      conditions: {unary: [{key: age, operator: GREATER_OR_EQUAL, operand: "18"}]}
    - name: children
      conditions: {unary: [{key: Age, operator: LESS_THAN, operand: "18"}]}
    - name: seniors
      conditions: {unary: [{key: age, operator: GREATER_OR_EQUAL, operand: "65"}]}
    - name: elderly
      priority: 7
      conditions: {unary: [{key: age, operator: GREATER_OR_EQUAL, operand: "65"}]}
"""


def variations(*specs: str) -> str:
    """Variations a, b, c of one model in staging and production."""
    items = [
        f"    - {{model: m, name: {name}, environments: [staging, production], build: b{', ' if spec else ''}{spec}}}\n"
        for name, spec in zip("abc", specs, strict=False)
    ]
    return "api_version: v1\nspec:\n  variations:\n" + "".join(items)


def load(*specs: str) -> Loaded:
    return parse({"base.yaml": BASE.encode(), "variations.yaml": variations(*specs).encode()})


def served(loaded: Loaded) -> set[str]:
    return {name for _, name in loaded.catalog.variations}


@pytest.mark.parametrize(
    "specs",
    [
        [""],
        ["traffic: []"],
        ["traffic: [{}]"],
        ["traffic: [{weight: 90}]", "traffic: [{weight: 10}]"],
        ["traffic: [{weight: 90}]", "traffic: [{weight: 10}]", ""],
        ["traffic: [{}]", "traffic: [{weight: 20, shadow: true}]"],
        ["traffic: [{weight: 100}, {weight: 50, shadow: true}]"],
        ["traffic: [{audience: adults}, {}]", "traffic: [{audience: children}]"],
        ["traffic: [{audience: adults, weight: 60}, {}]", "traffic: [{audience: adults, weight: 40}]"],
        ["traffic: [{audience: seniors}, {}]", "traffic: [{audience: elderly}]"],
        ["traffic: [{audience: adults}]", "traffic: [{audience: everybody}]"],
        ["traffic: [{}], environment_overrides: {production: {traffic: [{weight: 30}]}}",
         "traffic: [], environment_overrides: {production: {traffic: [{weight: 70}]}}"],
    ],
)  # fmt: skip
def test_requests_that_are_shared_without_a_rest_are_fine(specs: list[str]) -> None:
    loaded = load(*specs)
    assert [str(problem) for problem in loaded.problems] == []


CASES = [
    (
        "traffic/weights",
        ["traffic: [{weight: 90}]", "traffic: [{weight: ▸20}]"],
        "The weights of everybody else for m in staging and production sum to 110, not to 100 (a 90, b 20).",
        "make them sum to 100",
    ),
    (
        "traffic/weights",
        ["traffic: [{}, {audience: adults, weight: ▸50}]", "traffic: [{audience: adults, weight: 50, shadow: true}]"],
        'The weights of the audience "adults" for m in staging and production sum to 50, not to 100 (a 50).',
        "write 100",
    ),
    (
        "traffic/weights",
        [
            "traffic: [{}], environment_overrides: {production: {traffic: [{weight: 30}]}}",
            "traffic: [], environment_overrides: {production: {traffic: [{weight: ▸60}]}}",
        ],
        "The weights of everybody else for m in production sum to 90, not to 100 (a 30, b 60).",
        "make them sum to 100",
    ),
    (
        "traffic/two-shadows",
        ["traffic: [{}]", "traffic: [{shadow: true}]", "traffic: [{shadow: ▸true}]"],
        "2 variations are shadows for everybody else to m in staging and production (b, c).",
        "keep one of them",
    ),
    (
        "traffic/shadow-alone",
        ["traffic: [{}]", "traffic: [▸{audience: adults, shadow: true}]"],
        'Only a shadow takes the requests of the audience "adults" to m in staging and production.',
        "give a variation a share without shadow",
    ),
    (
        "traffic/nobody",
        ["", "▸"],
        "m has 2 variations in staging and production, and none says whose requests it takes.",
        "write traffic: [{weight: 100}] in one of them",
    ),
]


@pytest.mark.parametrize(("rule", "specs", "message", "hint"), CASES, ids=[case[0] for case in CASES])
def test_requests_that_are_not_are_an_error_and_the_model_is_left_as_it_is(
    rule: str, specs: list[str], message: str, hint: str
) -> None:
    before = variations(*specs).partition("▸")[0]
    # A variation that says nothing of traffic is shown itself.
    column = 7 if rule == "traffic/nobody" else len(before) - before.rfind("\n")
    loaded = load(*(spec.replace("▸", "") for spec in specs))

    assert [(p.rule, p.line, p.column, p.message, p.hint) for p in loaded.problems] == [
        (rule, before.count("\n") + 1, column, message, hint)
    ]
    assert served(loaded) == set()
    assert set(loaded.catalog.environments) == {"staging", "production"}


def test_audiences_that_share_requests_need_an_order() -> None:
    loaded = load("traffic: [{audience: adults}, {}]", "traffic: [{audience: seniors}]")

    assert [(p.rule, p.file, p.line, p.column) for p in loaded.problems] == [
        ("traffic/audience-order", "base.yaml", 11, 7)
    ]
    assert loaded.problems[0].message == (
        'A request to m in staging and production can match both "adults" (base.yaml:7) and "seniors", which have the '
        "same priority 100."
    )
    assert loaded.problems[0].hint == "give each a priority of its own; the lowest is tried first"
    assert served(loaded) == set()


def test_more_audiences_of_one_priority_than_can_be_compared_need_priorities() -> None:
    names = [f"region-{number}" for number in range(51)]
    condition = "{key: region, operator: UNARY_OPERATOR_TYPE_EXACT_MATCH, operand: %s}"
    audiences = "".join(f"    - {{name: {n}, conditions: {{unary: [{condition % n}]}}}}\n" for n in names)
    shares = ", ".join(f"{{audience: {name}}}" for name in names)

    def problems(shares: str) -> list[str]:
        text = f"{variations(f'traffic: [{shares}, {{}}]')}  audiences:\n{audiences}"
        return [p.rule for p in parse({"base.yaml": BASE.encode(), "v.yaml": text.encode()}).problems]

    assert problems(shares) == ["traffic/audience-order"]
    assert problems(shares.removesuffix(", {audience: region-50}")) == []


def test_audiences_of_different_models_need_no_order() -> None:
    text = variations("traffic: [{audience: adults}, {}]") + (
        "    - {model: other, environments: [staging], build: o-1, traffic: [{audience: seniors}, {}]}\n"
        '  builds: [{name: o-1, model: other, git_uri: "https://example.com/models.git"}]\n'
    )
    loaded = parse({"base.yaml": BASE.encode(), "variations.yaml": text.encode()})
    assert loaded.problems == ()


def test_requests_that_nobody_takes_are_worth_a_warning_and_no_more() -> None:
    loaded = load("traffic: [{audience: adults}]")

    assert [(p.rule, p.severity, p.line, p.column) for p in loaded.problems] == [("traffic/no-rest", "warning", 4, 83)]
    assert served(loaded) == {"a"}


def test_a_variation_that_an_automation_implies_counts_as_one_that_says_nothing() -> None:
    automation = (
        "api_version: v1\nspec:\n  automations:\n"
        "    - {name: nightly, model: m, trigger: manual, build_spec: {git_uri: 'https://example.com/m'},\n"
        "       deployment_spec: {variation_name: new, environments: [staging]}}\n"
    )
    files = {"automation.yaml": automation.encode(), "base.yaml": BASE.encode()}

    assert parse(files | {"v.yaml": variations("traffic: [{}]").encode()}).problems == ()
    (problem,) = parse(files | {"v.yaml": variations("").encode()}).problems
    assert (problem.rule, problem.file) == ("traffic/nobody", "automation.yaml")
