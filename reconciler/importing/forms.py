"""What the rooms of the import share: taking a form's keys one by one, and telling what becomes of each.

Nothing is dropped without a word. A key that nobody takes has no counterpart, and is told; a value that cannot be known
is told, and leaves a comment in the result; a value that is written otherwise is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

from reconciler.importing.naming import Name
from reconciler.importing.values import Made, Place, Unknown, Value
from reconciler.importing.writing import Lost, Noted
from reconciler.specs.references import CREDENTIAL
from schemas.problem import Problem, Severity, quoted


@dataclass(slots=True)
class Told:
    """What an import has to say, and which Secrets somebody must make for it."""

    problems: list[Problem] = field(default_factory=list)
    #: Secret -> (its key, where what belongs into it stands).
    secrets: dict[Name, tuple[str, Place]] = field(default_factory=dict)
    _holding: dict[str, Name] = field(default_factory=dict)

    def tell(self, place: Place, rule: str, message: str, hint: str = "", severity: Severity = "warning") -> None:
        self.problems.append(Problem(*place, (), rule, message, hint, severity))

    def changed(self, place: Place, message: str) -> None:
        """Something is written otherwise than it was."""
        self.tell(place, "import/changed", message)

    def without(self, place: Place, message: str, hint: str = "") -> None:
        """Something has no counterpart."""
        self.tell(place, "import/no-counterpart", message, hint)

    def undecided(self, place: Place, message: str, hint: str = "", *, short: str = "") -> Lost:
        """Something that a person must decide. The answer stands in its place; `short` where the key says the rest."""
        self.tell(place, "import/unknown", message, hint, "error")
        return Lost(f"{short or message} ({place.file}:{place.line})")

    def named_secret(self, value: Value, key: str) -> Any:
        """A secret of the platform, by its name."""
        if not isinstance(value.data, str):
            return simple(value, self, "the name of a secret")
        name = Name("secret", value.data)
        self.secrets.setdefault(name, (key, value.place))
        return name

    def hidden(self, base: str, content: str, key: str, place: Place) -> Name:
        """The name of a Secret for what must not stand in a spec. Equal contents are one Secret."""
        if content not in self._holding:
            taken = sum(name.text == base for name in self._holding.values())
            self._holding[content] = Name("secret", base, number=taken + 1)
            self.secrets[self._holding[content]] = (key, place)
        return self._holding[content]


def simple(value: Value, told: Told, what: str) -> Any:
    """A value as a spec holds it; `Lost` where it, or a part of it, is not known."""
    match value.data:
        case Unknown(why):
            message = f"{what} cannot be known: it {why}."
            return told.undecided(value.place, message, "write it into the result", short=f"it {why}")
        case Made(name):
            return told.undecided(value.place, f"{what} cannot be a {name}.", "write it into the result")
        case list(items):
            return [simple(item, told, f"an item of {what}") for item in items]
        case dict(fields):
            return {key: simple(item, told, f"{key} of {what}") for key, item in fields.items()}
        case data:
            return data


#: Makes of a value what a spec holds. The text is what to call it in a sentence.
Convert = Callable[[Value, Told, str], Any]


class Form:
    """The fields of a mapping or an object, each taken once."""

    def __init__(self, fields: Mapping[str, Value], place: Place, told: Told, subject: str) -> None:
        self._left = dict(fields)
        self.place = place
        self.told = told
        self.subject = subject

    @classmethod
    def of(cls, value: Value | None, place: Place, told: Told, subject: str, *kinds: str) -> Form:
        """A form of a mapping, or of an SDK object of one of these classes; an empty one of what is neither."""
        match value.data if value is not None else None:
            case dict(fields):
                pass
            case Made(name, fields) if name in kinds:
                pass
            case _:
                fields = {}
                if value is not None and not value.says_nothing:
                    simple(value, told, subject) if isinstance(value.data, Unknown) else told.undecided(
                        value.place,
                        f"{subject} is not of the form that the platform reads.",
                        "write it into the result",
                    )
        return cls(fields, value.place if value is not None else place, told, subject)

    def value(self, key: str) -> Value | None:
        """A field, or None where it says nothing."""
        value = self._left.pop(key, None)
        return None if value is None or value.says_nothing else value

    def has_any(self) -> bool:
        """Whether anything is left that says something."""
        return any(not value.says_nothing for value in self._left.values())

    def form(self, key: str, *kinds: str) -> Form:
        """A field that is a form itself; an empty one where there is none."""
        return Form.of(self.value(key), self.place, self.told, f"{key} of {self.subject}", *kinds)

    def take(self, key: str, convert: Convert = simple, default: Any = None) -> Any:
        """A field as a spec holds it."""
        value = self.value(key)
        return default if value is None else convert(value, self.told, f"{key} of {self.subject}")

    def text(self, key: str) -> str:
        """A field that must be known: "" where it is not."""
        value = self.take(key)
        return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""

    def items(self, key: str) -> list[Value]:
        """The items of a list; none where it is not known."""
        value = self.value(key)
        if value is None:
            return []
        if isinstance(value.data, list):
            return value.data
        simple(value, self.told, f"{key} of {self.subject}")
        return []

    def ignore(self, *keys: str) -> None:
        """What says nothing about what is wanted: ids that the platform's server gave, levels of logs."""
        for key in keys:
            self._left.pop(key, None)

    def end(self, hints: Mapping[str, str] | None = None) -> None:
        """Tells what nobody has taken."""
        for key, value in self._left.items():
            if not value.says_nothing and value.data is not False:
                hint = (hints or {}).get(key, "")
                self.told.without(value.place, f"{key} of {self.subject} has no counterpart: it was left out.", hint)


def given(**fields: Any) -> dict[str, Any]:
    """The fields that say something, in this order."""
    return {key: value for key, value in fields.items() if value is not None}


def unless(default: Any, value: Any) -> Any:
    """A value, or None where it is the default of the language and goes without saying."""
    return None if value == default and isinstance(value, bool) == isinstance(default, bool) else value


# -- values of the platform as ours -----------------------------------------------------------------------------------


def as_text(value: Value, told: Told, what: str) -> Any:
    """Text, also where the file has a number."""
    if isinstance(value.data, bool) or not isinstance(value.data, int | float):
        return simple(value, told, what)
    told.changed(value.place, f"{what} was the number {value.data}; it was written as text.")
    return str(value.data)


def lower(value: Value, told: Told, what: str) -> Any:
    """Words that the platform reads in any case."""
    return value.data.lower() if isinstance(value.data, str) else simple(value, told, what)


def upper(value: Value, told: Told, what: str) -> Any:
    """As `lower`."""
    return value.data.upper() if isinstance(value.data, str) else simple(value, told, what)


_MEMORY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(gib?|gb?|mib?|mb?)?\s*", re.IGNORECASE)


def memory(value: Value, told: Told, what: str) -> Any:
    """An amount of memory; a bare number is MiB."""
    if isinstance(value.data, bool) or not isinstance(value.data, str | int | float):
        return simple(value, told, what)
    match = _MEMORY.fullmatch(str(value.data))
    if match is None:
        return value.data  # refused by the language, with its own words
    number, unit = match[1], (match[2] or "Mi")[0].upper()
    if not float(number):
        return None
    written = f"{number}{unit}i"
    if isinstance(value.data, str) and value.data.rstrip("bB") != written:
        told.changed(value.place, f"{what} was {quoted(value.data)}; it was written as {written}.")
    return written


def nonzero(value: Value, told: Told, what: str) -> Any:
    """A number of which 0 says "as it is"."""
    return None if value.data == 0 else simple(value, told, what)


def threshold(value: Value, told: Told, what: str) -> Any:
    """A threshold: text, of digits or of SQL."""
    text = as_text(value, told, what)
    if isinstance(text, str) and re.match(r"[\s(]*(select|with)\b", text, re.IGNORECASE):
        return sql(value, told, what)
    return text.strip() if isinstance(text, str) else text


def sql(value: Value, told: Told, what: str) -> Any:
    """SQL, which was written for other tables. How far its lines are indented is of no meaning."""
    text = simple(value, told, what)
    if not isinstance(text, str):
        return text
    told.tell(
        value.place,
        "import/sql",
        f"{what} is SQL for the platform's analytics, whose tables are not ours.",
        "the tables here are builds, build_metrics, promotions, deployments and inferences",
    )
    return "\n".join(line.rstrip() for line in dedent(text.expandtabs()).strip().splitlines())


def secret(key: str) -> Convert:
    """The name of a secret of the platform, as that of a Secret with this key."""
    return lambda value, told, _: told.named_secret(value, key)


def env_vars(owner: str, *, expands: bool = False) -> Convert:
    """Environment variables, in both spellings, as a mapping. Credentials become Secrets of the owner.

    `expands`: `$NAME` in a value stands for a variable of whoever runs the command.
    """

    def convert(value: Value, told: Told, what: str) -> Any:
        pairs: dict[str, Any] = {}
        if isinstance(value.data, dict):
            entries = [(name, item) for name, item in value.data.items()]
        elif isinstance(value.data, list):
            entries = [pair for item in value.data for pair in _pairs(item)]
        else:
            return simple(value, told, what)
        for name, item in entries:
            text = as_text(item, told, f"{name} of {what}")
            if isinstance(text, bool):
                text = str(text)
            if isinstance(text, str) and expands and (variable := re.search(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", text)):
                message = f"{name} of {what} is filled in from the shell's variable {variable[1]}."
                text = told.undecided(item.place, message, "write its value, or secret.NAME")
            elif isinstance(text, str) and CREDENTIAL.search(name) and not text.startswith("secret."):
                text = _as_secret(owner, name, text, item.place, told)
            elif isinstance(text, str) and (reference := re.fullmatch(r"secret\.([a-z0-9-]+)", text)):
                told.secrets.setdefault(Name("secret", reference[1]), ("value", item.place))
            pairs[name] = text
        return pairs

    return convert


def _pairs(item: Value) -> list[tuple[str, Value]]:
    """An item of a list: "NAME=VALUE", or a mapping."""
    if isinstance(item.data, dict):
        return list(item.data.items())
    if not isinstance(item.data, str):
        return [("a variable", item)]
    name, equals, text = item.data.partition("=")
    if not equals:
        return [("a variable", Value(Unknown("is not of the form NAME=VALUE"), item.place))]
    return [(name.strip(), Value(text, item.place))]


def _as_secret(owner: str, name: str, text: str, place: Place, told: Told) -> Any:
    if not text:
        return text
    slug = re.sub(r"[^a-z0-9]+", "-", f"{owner}-{name}".lower()).strip("-")
    secret = told.hidden(slug, f"{slug}={text}", "value", place)
    reference = f"secret.{slug}" if secret.number == 1 else f"secret.{slug}-{secret.number}"
    told.changed(
        place, f"The variable {name} looks like a credential: it was not copied, and {reference} stands for it."
    )
    return Noted(reference, f"put what {place.file}:{place.line} has into the Secret {reference[7:]}, key value")


def parameters(value: Value, told: Told, what: str) -> Any:
    """Parameters: a mapping of texts, or a list of NAME=VALUE."""
    entries = [pair for item in value.data for pair in _pairs(item)] if isinstance(value.data, list) else None
    if isinstance(value.data, dict):
        entries = list(value.data.items())
    if entries is None:
        return simple(value, told, what)
    return {name: as_text(item, told, f"{name} of {what}") for name, item in entries}


_CREDENTIALS_IN_URL = re.compile(r"^((?:https?|git)://)([^/@]+)@")


def git_uri(value: Value, told: Told, what: str) -> Any:
    """The address of a repository. A password in it is not copied."""
    text = simple(value, told, what)
    if not isinstance(text, str):
        return text
    text = text.strip().removeprefix("git+")
    if _CREDENTIALS_IN_URL.match(text):
        told.secrets.setdefault(Name("secret", "git-credentials"), ("token", value.place))
        told.changed(value.place, f"{what} holds a credential, which was not copied.")
        text = _CREDENTIALS_IN_URL.sub(r"\1", text)
        return Noted(text, "it held a credential: put it into a Secret, key token, named by git_access_token_secret")
    return text
