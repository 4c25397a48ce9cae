"""Who is called what, in all files: the little that the specs of one group must know of all others.

Specs are judged in groups: all environments; each audience; the builds, variations and automations of each model.
What is true of a group follows from its own specs, from the environments, and from the answers to a few questions
about others: who has this name, is that audience valid, may a name that nobody has be in a part that could not be
read. A group is judged again when its specs, an environment or one of the answers changes, and so a changed file
costs what it is about.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from reconciler.specs.sharing import alike
from reconciler.specs.typed import Found, Key, Typed, plain_name


class Group(NamedTuple):
    """Specs that are judged together: ENVIRONMENTS, ("audiences", name), or ("models", the model's plain name)."""

    kind: str
    name: str


ENVIRONMENTS = Group("environments", "")


def group_of(found: Found[Any]) -> Group:
    """The group of a spec."""
    if found.kind == "environments":
        return ENVIRONMENTS
    if found.kind == "audiences":
        return Group("audiences", found.name)
    return group_of_model(found.spec.model)


def group_of_model(model: str) -> Group:
    """The group of a model: one for all whose names differ only in what people get wrong in names."""
    return Group("models", plain_name(model))


#: A key, for who has that name; or one of those below.
Question: TypeAlias = tuple[str, str, str]


def _like(kind: str, name: str) -> Question:
    return "like", kind, name


def _doubt_of(name: str) -> Question:
    return "doubt of", "", name


def _doubt_of_model(name: str) -> Question:
    return "doubt of", "models", name


_ANY_DOUBT: Question = ("doubt of", "", "")


class Change(NamedTuple):
    """What differs between two states of the files."""

    groups: set[Group]  #: those whose own specs, or whose claims to names, do
    answers: set[Question]  #: what is answered otherwise now
    moved: set[Key]  #: of these specs, no more than where they stand


class Names:
    """All specs of all files, by name and by group, and what may be in the parts that could not be read."""

    __slots__ = ("_doubts", "_like", "_members", "_spellings", "claims")

    def __init__(self) -> None:
        #: Who has a name, in the order of the files. The first one is meant by it.
        self.claims: dict[Key, list[Found[Any]]] = {}
        self._members: dict[Group, list[Found[Any]]] = {}
        self._doubts: Counter[Question] = Counter()  #: in how many files
        self._spellings: dict[str, Spellings] = {}  #: by kind, as far as somebody asked
        self._like: dict[Question, list[str]] = {}

    def models(self) -> set[Group]:
        """The groups of all models."""
        return {group for group in self._members if group.kind == "models"}

    def members(self, group: Group) -> Sequence[Found[Any]]:
        """The specs of a group, in the order of the files."""
        return self._members.get(group, ())

    def like(self, kind: str, name: str) -> Sequence[str]:
        """The names of a kind that may have been meant by one that is none, as `Spellings` has them."""
        question = _like(kind, name)
        if question not in self._like:
            if kind not in self._spellings:
                self._spellings[kind] = Spellings(other for of, _, other in self.claims if of == kind)
            self._like[question] = self._spellings[kind].like(name)
        return self._like[question]

    def forget(self, question: Question) -> None:
        """Nobody asks this any more."""
        self._like.pop(question, None)

    def is_doubtful(self, question: Question) -> bool:
        """Whether what could not be read may be the answer."""
        return question in self._doubts

    def exchange(self, old: Collection[Typed], new: Collection[Typed]) -> Change:
        """Takes what some files hold now for what they held before."""
        gone = [found for typed in old for found in typed.found]
        come = [found for typed in new for found in typed.found]
        doubts = [question for typed in (*old, *new) for question in _doubts(typed)]
        had = {key: tuple(self.claims.get(key, ())) for key in {found.key for found in (*gone, *come)}}
        doubted = self._doubts.keys() & doubts
        for found in gone:
            self._remove(found)
        for found in come:
            self._add(found)
        self._doubts += Counter(question for typed in new for question in _doubts(typed))
        self._doubts -= Counter(question for typed in old for question in _doubts(typed))
        return self._change(had, doubted ^ (self._doubts.keys() & doubts))

    def _change(self, had: Mapping[Key, tuple[Found[Any], ...]], doubts: set[Question]) -> Change:
        groups = self._members.keys() & {Group("models", name) for _, of, name in doubts if of == "models"}
        change = Change(groups, set(doubts), set())
        toggled: defaultdict[str, list[str]] = defaultdict(list)
        for key, before in had.items():
            after = self.claims.get(key, ())
            change.groups.update(map(group_of, (*before, *after)))
            same = len(before) == len(after)
            if same and all(alike(one.spec, other.spec) for one, other in zip(before, after, strict=True)):
                change.moved.add(key)
            else:
                change.answers.add(key)
            if bool(before) != bool(after):
                toggled[key[0]].append(key[2])
        change.answers.update(self._respelled(toggled))
        return change

    def _respelled(self, toggled: Mapping[str, Iterable[str]]) -> Iterator[Question]:
        """What is answered otherwise when names have come and gone, by kind."""
        for kind in toggled.keys() & self._spellings.keys():
            spellings = self._spellings[kind]
            for name in toggled[kind]:
                spellings.toggle(name)
            for question, before in [(q, names) for q, names in self._like.items() if q[1] == kind]:
                self._like[question] = spellings.like(question[2])
                if self._like[question] != before:
                    yield question

    def _add(self, found: Found[Any]) -> None:
        for specs in (self.claims.setdefault(found.key, []), self._members.setdefault(group_of(found), [])):
            specs.insert(bisect_left(specs, found.rank, key=_RANK), found)

    def _remove(self, found: Found[Any]) -> None:
        key, group = found.key, group_of(found)
        for specs in (self.claims[key], self._members[group]):
            del specs[bisect_left(specs, found.rank, key=_RANK)]
        if not self.claims[key]:
            del self.claims[key]
        if not self._members[group]:
            del self._members[group]


_RANK = attrgetter("rank")


def _doubts(typed: Typed) -> set[Question]:
    doubts = {_doubt_of(name) for name in typed.doubtful} | {_doubt_of_model(name) for name in typed.doubtful_models}
    return doubts | {_ANY_DOUBT} if doubts else doubts


class Spellings:
    """The names of a kind, to find those that somebody may have meant who wrote one that is none.

    Looking closely at thousands takes a tenth of a second for each such name. But a slip leaves the beginning of a
    name as it was, or its end.
    """

    __slots__ = ("_beginnings", "_ends")

    def __init__(self, names: Iterable[str]) -> None:
        self._beginnings = sorted((plain_name(name), name) for name in names)
        self._ends = sorted((plain[::-1], name) for plain, name in self._beginnings)

    def toggle(self, name: str) -> None:
        """Adds a name that is not there, removes one that is."""
        plain = plain_name(name)
        for ordered, entry in ((self._beginnings, (plain, name)), (self._ends, (plain[::-1], name))):
            index = bisect_left(ordered, entry)
            if ordered[index : index + 1] == [entry]:
                del ordered[index]
            else:
                ordered.insert(index, entry)

    def like(self, name: str) -> list[str]:
        """In order: all names if they are few, or else some that begin like a name or end like it."""
        plain = plain_name(name)
        pairs = _around(self._beginnings, plain) + _around(self._ends, plain[::-1])
        return sorted({name for _, name in pairs})


def _around(ordered: list[tuple[str, str]], text: str) -> list[tuple[str, str]]:
    index = bisect_left(ordered, (text, ""))
    return ordered[max(index - 20, 0) : index + 20]


class Scope:
    """What the check of one group may ask of others. What was asked is remembered in `asked`.

    Nobody need ask for environments: each group is judged again when one of them changes.
    """

    __slots__ = ("_audiences", "_names", "asked", "environments")

    def __init__(self, names: Names, environments: dict[Key, Found[Any]], audiences: Container[str]) -> None:
        self._names = names
        self.environments = environments  #: the valid ones
        self._audiences = audiences
        self.asked: set[Question] = set()

    def claims(self, key: Key) -> Sequence[Found[Any]]:
        """Who has a name, in the order of the files."""
        self._ask(key)
        return self._names.claims.get(key, ())

    def audience(self, key: Key) -> Found[Any] | None:
        """The valid audience of that name."""
        self._ask(key)
        return self._names.claims[key][0] if key[2] in self._audiences else None

    def has_environments(self) -> bool:
        """Whether there is an environment, valid or not."""
        return bool(self._names.members(ENVIRONMENTS))

    def names_like(self, kind: str, name: str) -> Sequence[str]:
        """What may have been meant by a name that is none, of what is not valid as well."""
        self._ask(_like(kind, name))
        return self._names.like(kind, name)

    def is_doubtful(self, name: str) -> bool:
        """Whether what could not be read mentions a name."""
        return self._is_doubtful(_doubt_of(plain_name(name)))

    def is_doubtful_model(self, model: str) -> bool:
        """Whether what could not be read may be a variation of a model."""
        # Not remembered: only its own group asks, and that is among `Change.groups` when the answer changes.
        return self._names.is_doubtful(_doubt_of_model(plain_name(model)))

    def is_whole(self) -> bool:
        """Whether every part of every file could be read."""
        return not self._is_doubtful(_ANY_DOUBT)

    def _is_doubtful(self, question: Question) -> bool:
        self._ask(question)
        return self._names.is_doubtful(question)

    def _ask(self, question: Question) -> None:
        if question[0] != "environments":
            self.asked.add(question)
