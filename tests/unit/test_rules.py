"""What is said about each rule: every id that the code can raise has its sentence, and no other has one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from reconciler.report import rules
from reconciler.report.rules import FAMILIES, LIMITS, RULES
from schemas.document import KINDS

ROOT = Path(__file__).parents[2]
#: Ids are written out where they are raised. This one is put together, of the words for the kinds of specs.
PUT_TOGETHER = {"reference/unknown-": {f"reference/unknown-{word}" for word, _ in KINDS.values()}}
#: Of these, the id of a rule of the organisation's own.
OWN = {"policy/"}
#: API versions of Kubernetes look like ids.
VERSION = re.compile(r".*/v[0-9]+((alpha|beta)[0-9]+)?")
RULE = re.compile(r"[a-z]+/[a-z0-9]+(-[a-z0-9]+)*")


@cache
def nodes() -> list[ast.Constant | ast.JoinedStr]:
    """Every text of the code, but for the sentences themselves."""
    files = [path for package in ("schemas", "renderers", "reconciler") for path in (ROOT / package).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files if path != Path(rules.__file__)]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)]


def is_of_a_family(text: str) -> bool:
    return text.partition("/")[0] in {*FAMILIES, "prune"} and "/" in text


def test_every_rule_that_can_be_broken_has_its_sentence_and_no_other_has_one() -> None:
    texts = {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    written = {text for text in texts if RULE.fullmatch(text) and is_of_a_family(text) and not VERSION.fullmatch(text)}

    assert sorted(written.union(*PUT_TOGETHER.values())) == list(RULES), "reconciler/report/rules.py, in this order"


def test_ids_are_written_out_so_that_they_can_be_searched_for() -> None:
    begins = {
        node.values[0].value
        for node in nodes()
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant)
    }
    kinds = {f"{word}/" for word, _ in KINDS.values()}  # whose it is, in annotations: f"variation/{model}/{name}"

    assert {str(text) for text in begins if is_of_a_family(str(text))} - kinds == {*PUT_TOGETHER, *OWN}


def test_every_family_has_rules_and_a_limit_is_no_problem_of_a_spec() -> None:
    families = {rule.partition("/")[0] for rule in RULES}

    assert families - {"prune"} == set(FAMILIES)
    assert {rule for rule in RULES if rule.startswith("prune/")} < set(LIMITS)


def test_a_rule_says_what_it_means_in_a_sentence() -> None:
    assert [rule for rule, said in RULES.items() if not re.fullmatch(r"[A-Z`].{20,250}\.", said)] == []
    assert rules.about("policy/two-pods") == FAMILIES["policy"]
