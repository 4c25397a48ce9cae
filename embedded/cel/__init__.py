"""The Common Expression Language, as far as `x-kubernetes-validations` of CustomResourceDefinitions use it.

Written from the language definition (https://github.com/google/cel-spec/blob/master/doc/langdef.md) and the list of
libraries in https://kubernetes.io/docs/reference/using-api/cel/ . There: all operators, macros (`has`, `all`,
`exists`, `exists_one`, `filter`, `map`), strings, regular expressions, lists, durations, timestamps, quantities,
messageExpression, fieldPath, transition rules. Not there: optional types (`?.`, `optionalOldSelf`), `format`, the URL
library, IP and CIDR values (`isIP` and `isCIDR` are), static types and cost limits. A rule that uses what is not
there is refused when the definition is created, so that no rule is ever silently skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedded.cel.evaluation import CelRuntimeError, Env, Node
from embedded.cel.parser import CelError, Parser

__all__ = ["CelError", "CelRuntimeError", "Rule", "compile_expression", "compile_rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of x-kubernetes-validations. `transition`: it compares with the stored value and only runs where
    there is one."""

    text: str
    evaluate: Node
    message: str
    message_expression: Node | None
    transition: bool
    reason: str
    field_path: str

    def refusal(self, value: Any, old: Any) -> str | None:
        """The message when the rule does not hold, None when it does. Raises CelRuntimeError where it has no answer."""
        env: Env = {"self": value, "oldSelf": old}
        if self.evaluate(env) is True:
            return None
        if self.message_expression is not None:
            try:
                text = self.message_expression(env)
            except CelRuntimeError:
                text = ""
            if isinstance(text, str) and text.strip():
                return text.strip()
        return self.message or f"failed rule: {self.text}"


def compile_rule(rule: Mapping[str, Any]) -> Rule:
    """Compile one entry of x-kubernetes-validations. Raises CelError."""
    if rule.get("optionalOldSelf"):
        raise CelError("optionalOldSelf is not supported by this server")
    names = {"self", "oldSelf"}
    parser = Parser(rule["rule"], names)
    message_expression = rule.get("messageExpression")
    return Rule(
        text=rule["rule"].strip(),
        evaluate=parser.compile(),
        message=rule.get("message", "").strip(),
        message_expression=Parser(message_expression, names).compile() if message_expression else None,
        transition="oldSelf" in parser.used,
        reason=rule.get("reason", "FieldValueInvalid"),
        field_path=rule.get("fieldPath", ""),
    )


def compile_expression(text: str, names: frozenset[str]) -> Node:
    """Compile any expression over the given variables. Raises CelError."""
    return Parser(text, set(names)).compile()
