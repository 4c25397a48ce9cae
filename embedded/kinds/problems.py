"""Collecting the causes of a refusal, and the checks that several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from embedded.kinds import formats
from embedded.quantity import parse_quantity
from embedded.schema import Cause, go_value


class Problems:
    """Causes in the order of their finding, worded as the API server words them."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def invalid(self, field: str, value: Any, why: str) -> None:
        self.causes.append(Cause(field, "FieldValueInvalid", f"Invalid value: {go_value(value)}: {why}"))

    def each_invalid(self, field: str, value: Any, whys: Iterable[str]) -> None:
        for why in whys:
            self.invalid(field, value, why)

    def required(self, field: str, why: str = "") -> None:
        cause = Cause(field, "FieldValueRequired", f"Required value: {why}" if why else "Required value")
        if not any(
            known.field == field and known.reason == cause.reason for known in self.causes
        ):  # the schema says it, too
            self.causes.append(cause)

    def forbidden(self, field: str, why: str) -> None:
        self.causes.append(Cause(field, "FieldValueForbidden", f"Forbidden: {why}"))

    def duplicate(self, field: str, value: Any) -> None:
        cause = Cause(field, "FieldValueDuplicate", f"Duplicate value: {go_value(value)}")
        if cause not in self.causes:
            self.causes.append(cause)

    def not_found(self, field: str, value: Any) -> None:
        self.causes.append(Cause(field, "FieldValueNotFound", f"Not found: {go_value(value)}"))

    def unsupported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        text = ", ".join(go_value(item) for item in supported)
        self.causes.append(
            Cause(field, "FieldValueNotSupported", f"Unsupported value: {go_value(value)}: supported values: {text}")
        )

    def too_long(self, field: str, most: int) -> None:
        self.causes.append(Cause(field, "FieldValueTooLong", f"Too long: may not be more than {most} bytes"))

    # checks that several kinds share

    def not_negative(self, field: str, value: int | None) -> None:
        if value is not None and value < 0:
            self.invalid(field, value, "must be greater than or equal to 0")

    def within(self, field: str, value: int | None, low: int, high: int) -> None:
        if value is not None and not low <= value <= high:
            self.invalid(field, value, f"must be between {low} and {high}, inclusive")

    def one_of(self, field: str, value: str | None, supported: Iterable[str]) -> None:
        choices = tuple(supported)
        if value is not None and value not in choices:
            self.unsupported(field, value, choices)

    def name(self, field: str, value: str | None, rule: Callable[[str], list[str]]) -> None:
        if value:
            self.each_invalid(field, value, rule(value))

    def labels(self, field: str, labels: Mapping[str, str] | None) -> None:
        for key, value in (labels or {}).items():
            self.each_invalid(field, key, formats.qualified_name(key))
            self.each_invalid(field, value, formats.label_value(value))

    def annotations(self, field: str, annotations: Mapping[str, str] | None) -> None:
        total = 0
        for key, value in (annotations or {}).items():
            self.each_invalid(field, key, formats.qualified_name(key.lower()))
            total += len(key.encode()) + len(value.encode())
        if total > 256 * 1024:
            self.too_long(field, 256 * 1024)

    def selector(self, field: str, selector: Mapping[str, Any] | None) -> bool:
        """Check a LabelSelector; True when it could be evaluated."""
        before = len(self.causes)
        if selector is None:
            return False
        self.labels(f"{field}.matchLabels", selector.get("matchLabels"))
        for index, rule in enumerate(selector.get("matchExpressions", ())):
            where = f"{field}.matchExpressions[{index}]"
            operator, values = rule.get("operator"), rule.get("values", ())
            if operator in ("In", "NotIn"):
                if not values:
                    self.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            elif operator in ("Exists", "DoesNotExist"):
                if values:
                    self.forbidden(
                        f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    )
            else:
                self.invalid(f"{where}.operator", operator, "not a valid selector operator")
            self.each_invalid(f"{where}.key", rule.get("key", ""), formats.qualified_name(rule.get("key", "")))
            for place, value in enumerate(values):
                self.each_invalid(f"{where}.values[{place}]", value, formats.label_value(value))
        return len(self.causes) == before

    def int_or_percent(self, field: str, value: Any, *, at_most_100: bool = True) -> None:
        if isinstance(value, str):
            if not (value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit()):
                self.invalid(field, value, formats.PERCENT_TEXT)
            elif at_most_100 and int(value[:-1]) > 100:
                self.invalid(field, value, "must not be greater than 100%")
        elif value is not None:
            self.not_negative(field, value)

    def port(self, field: str, value: Any) -> None:
        """A port by number or by name."""
        if isinstance(value, str):
            self.each_invalid(field, value, formats.port_name(value))
        else:
            self.each_invalid(field, value or 0, formats.port_number(value or 0))

    def quantity(self, field: str, value: Any) -> bool:
        """Check that the quantity is not negative; False where it cannot be read."""
        try:
            number = parse_quantity(value)
        except ValueError as error:
            self.invalid(field, value, str(error))
            return False
        if number < 0:
            self.invalid(field, value, "must be greater than or equal to 0")
        return True

    def immutable(self, field: str, new: Any, old: Any) -> None:
        if new != old:
            self.invalid(field, new, "field is immutable")


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector that was found valid, on labels. None selects nothing, {} everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", ()):
        held, values = labels.get(rule["key"]), rule.get("values", ())
        fits = {
            "In": held in values,
            "NotIn": held not in values,
            "Exists": held is not None,
            "DoesNotExist": held is None,
        }[rule["operator"]]
        if not fits:
            return False
    return True
