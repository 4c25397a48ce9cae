"""Sets of texts as finite automata: what audience conditions are made of, before they become patterns.

Gateway API compares a header once per match, and its regular expressions (RE2) know neither "not" nor "and". An
automaton knows both. So every condition becomes an automaton, conditions on one header are intersected, and the
result is written as one regular expression. Whether two audiences can meet is the question whether an intersection
is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from itertools import groupby
from typing import NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)

#: Stands for every character that an automaton does not name.
OTHER = ""

#: Sixteen conditions "contains" on one header would need 2**16 states, and the plan an hour.
STATE_LIMIT = 2_000
#: A pattern nests as deeply as its longest chain of states, and Python's stack ends at 1000.
PATTERN_STATE_LIMIT = 150


class TooLarge(Exception):  # noqa: N818 - no error: the caller has another way
    """An automaton or its pattern would be larger than anybody would want."""


class State(NamedTuple):
    """One state; `moves` holds the characters that do not go to `default`."""

    accepts: bool
    default: int
    moves: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Automaton:
    """A set of texts: a minimal, complete, deterministic automaton whose start is state 0.

    The numbering is canonical: two automata that accept the same texts are equal.
    """

    states: tuple[State, ...]

    def __and__(self, other: Automaton) -> Automaton:
        return self._product(other, lambda a, b: a and b)

    def __or__(self, other: Automaton) -> Automaton:
        return self._product(other, lambda a, b: a or b)

    def __invert__(self) -> Automaton:
        return Automaton(tuple(state._replace(accepts=not state.accepts) for state in self.states))

    def __contains__(self, text: str) -> bool:
        number = 0
        for character in text:
            state = self.states[number]
            number = dict(state.moves).get(character, state.default)
        return self.states[number].accepts

    @property
    def is_empty(self) -> bool:
        """True where no text is accepted."""
        return not any(state.accepts for state in self.states)

    def _useful(self) -> set[int]:
        """The states from which some text is accepted."""
        useful = {number for number, state in enumerate(self.states) if state.accepts}
        while True:
            more = {
                number
                for number, state in enumerate(self.states)
                if number not in useful and (state.default in useful or any(t in useful for _, t in state.moves))
            }
            if not more:
                return useful
            useful |= more

    def _product(self, other: Automaton, accepts: Callable[[bool, bool], bool]) -> Automaton:
        mine = [dict(state.moves) for state in self.states]
        theirs = [dict(state.moves) for state in other.states]
        characters = {c for moves in (*mine, *theirs) for c in moves}

        def step(pair: tuple[int, int], character: str) -> tuple[int, int]:
            a, b = pair
            return (
                mine[a].get(character, self.states[a].default),
                theirs[b].get(character, other.states[b].default),
            )

        return explore(
            (0, 0), step, lambda pair: accepts(self.states[pair[0]].accepts, other.states[pair[1]].accepts), characters
        )

    def pattern(self, limit: int) -> str:
        """A regular expression for exactly these texts, to be matched with the whole; of at most `limit` characters.

        It uses what RE2 and Python's `re` write alike: classes, groups, and counted repetition. Raises TooLarge, and
        ValueError where there are no texts.
        """
        equations = _equations(self, self._useful())
        if not equations:
            raise ValueError("no pattern matches nothing")
        if len(equations) > PATTERN_STATE_LIMIT:
            raise TooLarge
        # Arden's lemma: X = a X | b has the solution X = a* b. Solved from the last state to the first, so that
        # chains of states nest to the right and need no loops but their own.
        for number in sorted(equations, reverse=True):
            terms = equations.pop(number)
            loop = terms.pop(number, None)
            if loop is not None:
                terms = {target: cat(star(loop), term) for target, term in terms.items()}
            if any(len(term.text()) > limit for term in terms.values()):
                raise TooLarge
            for others in equations.values():
                through = others.pop(number, None)
                if through is not None:
                    for target, term in terms.items():
                        others[target] = detour(through, term, others.get(target))
        # In a group where it has alternatives: who puts ^ and $ around it must not cut one off.
        text = cat(terms[ACCEPT], NOTHING).text()
        if len(text) > limit:
            raise TooLarge
        return text


# --- making automata ---------------------------------------------------------------------------------------------


def explore(
    start: S, step: Callable[[S, str], S], accepts: Callable[[S], bool], characters: Iterable[str]
) -> Automaton:
    """The automaton whose states are what `step` reaches from `start`.

    `step(state, character)` is asked for each of `characters`, and for OTHER. Raises TooLarge.
    """
    alphabet = sorted(characters)
    numbers = {start: 0}
    queue = [start]
    states: list[State] = []
    for state in queue:
        targets = {character: step(state, character) for character in (OTHER, *alphabet)}
        for target in targets.values():
            if target not in numbers:
                if len(queue) == STATE_LIMIT:
                    raise TooLarge
                numbers[target] = len(queue)
                queue.append(target)
        default = numbers[targets.pop(OTHER)]
        moves = tuple((c, numbers[t]) for c, t in targets.items() if numbers[t] != default)
        states.append(State(accepts(state), default, moves))
    return _minimal(states)


def _minimal(states: list[State]) -> Automaton:
    """Merges states that no text tells apart, and numbers what is left in order of reach."""
    classes = _classes(states)
    order: dict[int, int] = {classes[0]: 0}
    merged: list[State] = []
    queue = [states[0]]
    for state in queue:
        moves = [(c, t) for c, t in state.moves if classes[t] != classes[state.default]]
        for target in (*(t for _, t in moves), state.default):
            if classes[target] not in order:
                order[classes[target]] = len(queue)
                queue.append(states[target])
        merged.append(
            State(state.accepts, order[classes[state.default]], tuple((c, order[classes[t]]) for c, t in moves))
        )
    return Automaton(tuple(merged))


def _classes(states: list[State]) -> list[int]:
    """The class of each state; those of one class accept the same texts.

    By Hopcroft, in n log n steps for each character. To compare all states again after each split takes n steps as
    often as the longest text has characters: a second for an operand as long as the language allows.
    """
    moves = [dict(state.moves) for state in states]
    into: list[list[list[int]]] = []  # for each character: which states go to a state
    for character in {OTHER, *(character for named in moves for character in named)}:
        sources: list[list[int]] = [[] for _ in states]
        for number, state in enumerate(states):
            sources[moves[number].get(character, state.default)].append(number)
        into.append(sources)
    classes = [int(state.accepts) for state in states]
    members = [{number for number, its in enumerate(classes) if its == one} for one in (0, 1)]
    pending = {0, 1}
    while pending:
        splitter = tuple(members[pending.pop()])
        for sources in into:
            touched: dict[int, set[int]] = {}
            for target in splitter:
                for source in sources[target]:
                    touched.setdefault(classes[source], set()).add(source)
            for old, part in touched.items():
                if len(part) == len(members[old]):
                    continue
                new = len(members)
                members[old] -= part
                members.append(part)
                for number in part:
                    classes[number] = new
                pending.add(new if old in pending or len(part) <= len(members[old]) else old)
    return classes


EVERYTHING = Automaton((State(True, 0, ()),))


def literals(texts: Iterable[str]) -> Automaton:
    """Exactly these texts."""
    wanted = frozenset(texts)
    prefixes = {text[:length] for text in wanted for length in range(len(text) + 1)}

    def step(seen: str | None, character: str) -> str | None:
        longer = None if seen is None or character == OTHER else seen + character
        return longer if longer in prefixes else None

    start: str | None = ""
    return explore(start, step, lambda seen: seen in wanted, set().union(*wanted))


def starting_with(text: str) -> Automaton:
    """Every text with this prefix."""

    def step(length: int, character: str) -> int:
        if length in (-1, len(text)):
            return length
        return length + 1 if character == text[length] else -1

    return explore(0, step, lambda length: length == len(text), set(text))


def ending_with(text: str) -> Automaton:
    """Every text with this suffix."""
    longest = _longest_part(text)
    return explore(0, longest, lambda length: length == len(text), set(text))


def containing(text: str) -> Automaton:
    """Every text with this in it."""
    longest, whole = _longest_part(text), len(text)

    def step(length: int, character: str) -> int:
        return length if length == whole else longest(length, character)

    return explore(0, step, lambda length: length == whole, set(text))


def _longest_part(text: str) -> Callable[[int, str], int]:
    """Knuth, Morris and Pratt: the length of the longest prefix of `text` that what was read ends with."""
    rows: list[dict[str, int]] = [{text[0]: 1}]
    shorter = 0  # where the text without its first character has led
    for length, character in enumerate(text[1:], 1):
        rows.append({**rows[shorter], character: length + 1})
        shorter = rows[shorter].get(character, 0)
    rows.append(rows[shorter])

    return lambda length, character: rows[length].get(character, 0)


class _Number(NamedTuple):
    """What must be remembered of a decimal that is being read, to compare it with a bound."""

    phase: str  # "start", "sign", "integer", "point", "fraction", "no number"
    negative: bool = False
    digits: int = 0  # of the integer part, without leading zeros; of the fraction
    order: int = 0  # what was read of this part against as much of the bound's: -1, 0, 1


def decimals(bound: Decimal, orders: Iterable[int]) -> Automaton:
    """Decimals (`schemas.audience.DECIMAL`) that compare with the bound as wanted: -1 below, 0 equal, 1 above."""
    integer, _, fraction = format(abs(bound), "f").partition(".")
    integer, fraction = integer.lstrip("0"), fraction.rstrip("0")
    wanted = frozenset(orders)
    no_number = _Number("no number")

    def step(state: _Number, character: str) -> _Number:
        phase, negative, digits, order = state
        if character and character in "+-" and phase == "start":
            return _Number("sign", character == "-")
        if character == "." and phase == "integer":
            return _Number("point", negative, 0, by_length(digits, order))
        if not character or character not in "0123456789" or phase == "no number":
            return no_number
        if phase in ("start", "sign", "integer"):
            if digits == 0 and character == "0":
                return _Number("integer", negative)
            if digits < len(integer):
                return _Number("integer", negative, digits + 1, order or compare(character, integer[digits]))
            return _Number("integer", negative, len(integer) + 1, 1)
        if order == 0 and digits < len(fraction):
            order = compare(character, fraction[digits])
            return _Number("fraction", negative, digits + 1 if order == 0 else 0, order)
        return _Number("fraction", negative, digits if order == 0 else 0, order or compare(character, "0"))

    def by_length(digits: int, order: int) -> int:
        return -1 if digits < len(integer) else order

    def accepts(state: _Number) -> bool:
        phase, negative, digits, order = state
        if phase not in ("integer", "fraction"):
            return False
        if phase == "integer":
            order, digits = by_length(digits, order), 0
        if order == 0 and digits < len(fraction):
            order = -1
        if negative == (bound < 0) or bound == 0:
            return (-order if negative else order) in wanted
        return (-1 if negative else 1) in wanted

    return explore(_Number("start"), step, accepts, "+-.0123456789")


def compare(a: str, b: str) -> int:
    """-1, 0 or 1."""
    return (a > b) - (a < b)


# --- writing regular expressions ---------------------------------------------------------------------------------


class Repeated(NamedTuple):
    """A part of a sequence, so many times; `most` None: without end."""

    part: str | Expression  #: a class of characters, or a group
    least: int = 1
    most: int | None = 1

    def text(self) -> str:
        """As RE2 and Python write it."""
        times = {(1, 1): "", (0, 1): "?", (0, None): "*", (1, None): "+"}.get((self.least, self.most))
        if times is None:
            times = f"{{{self.least}}}" if self.least == self.most else f"{{{self.least},{self.most or ''}}}"
        atom = self.part if isinstance(self.part, str) else f"(?:{self.part.text()})"
        written_out = atom * self.least
        return written_out if self.least == self.most and len(written_out) <= len(atom + times) else atom + times


#: Parts one after another.
Sequence = tuple[Repeated, ...]


class Expression(NamedTuple):
    """A regular expression: alternatives, in a canonical order; () among them is the empty text."""

    options: tuple[Sequence, ...]

    def text(self) -> str:
        """As RE2 and Python write it."""
        return "|".join("".join(part.text() for part in option) for option in self.options)


NOTHING = Expression(((),))
ACCEPT = -1


def one_of(characters: str) -> Expression:
    """One character, written as a class."""
    return Expression(((Repeated(characters),),))


def cat(first: Expression, second: Expression) -> Expression:
    """The first, then the second."""
    joined: list[Repeated] = []
    for _, run in groupby((*_sequence(first), *_sequence(second)), key=lambda repeated: repeated.part):
        joined.append(reduce(_and_more, run))
    return Expression((tuple(joined),))


def _and_more(a: Repeated, b: Repeated) -> Repeated:
    return Repeated(a.part, a.least + b.least, None if a.most is None or b.most is None else a.most + b.most)


def _sequence(expression: Expression) -> Sequence:
    if len(expression.options) == 1:
        return expression.options[0]
    rest = Expression(tuple(option for option in expression.options if option))
    if len(rest.options) == len(expression.options):
        return (Repeated(expression),)
    only = rest.options[0] if len(rest.options) == 1 else ()
    if len(only) == 1 and (only[0].least, only[0].most) == (1, 1):
        return (only[0]._replace(least=0),)
    return (Repeated(rest, 0, 1),)


def star(expression: Expression) -> Expression:
    """Any number of times, also none."""
    sequence = _sequence(expression)
    plain = len(sequence) == 1 and sequence[0].least <= 1 and sequence[0].most in (1, None)
    part = sequence[0].part if plain else expression
    return Expression(((Repeated(part, 0, None),),))


def alt(*expressions: Expression) -> Expression:
    """One of these; what ends alike shares its ending."""
    options = {option for expression in expressions for option in expression.options}
    endings: dict[Repeated, list[Sequence]] = {}
    for option in options:
        if option:
            endings.setdefault(option[-1], []).append(option[:-1])
    merged = [
        cat(alt(*(_ungrouped(start) for start in starts)), Expression(((ending,),))).options[0]
        for ending, starts in endings.items()
    ]
    return Expression(tuple(sorted([*merged, ()] if () in options else merged, key=repr)))


def _ungrouped(sequence: Sequence) -> Expression:
    if len(sequence) == 1 and isinstance(sequence[0].part, Expression) and sequence[0].most == 1:
        group = sequence[0].part
        return group if sequence[0].least else Expression((*group.options, ()))
    return Expression((sequence,))


def detour(through: Expression, term: Expression, direct: Expression | None) -> Expression:
    """`through term | direct`, where a a{0,n} b | b is written a{0,n+1} b."""
    if direct is None:
        return cat(through, term)
    if term == direct:
        return cat(alt(through, NOTHING), term)
    first, rest = _sequence(term)[:1], _sequence(term)[1:]
    if rest == _sequence(direct) and first and first[0].least == 0:
        once, more = first[0]._replace(least=1, most=1), first[0].most and first[0].most + 1
        if through == Expression(((once,),)):
            return cat(Expression(((once._replace(least=0, most=more),),)), direct)
    return alt(cat(through, term), direct)


def _equations(automaton: Automaton, useful: set[int]) -> dict[int, dict[int, Expression]]:
    """For each useful state, which characters lead to which state; ACCEPT is where the text may end."""
    equations: dict[int, dict[int, Expression]] = {}
    for number, state in enumerate(automaton.states):
        if number not in useful:
            continue
        terms: dict[int, Expression] = {}
        for target, moves in groupby(sorted(state.moves, key=lambda move: move[1]), key=lambda move: move[1]):
            if target in useful:
                terms[target] = one_of(_class("".join(character for character, _ in moves)))
        if state.default in useful:
            named = "".join(character for character, _ in state.moves)
            terms[state.default] = one_of(_class(named, negated=True) if named else ".")
        if state.accepts:
            terms[ACCEPT] = NOTHING
        equations[number] = terms
    return equations


def escape(text: str) -> str:
    """The regular expression for exactly this text."""
    return "".join(_escaped(character, r"\.+*?()|[]{}^$") for character in text)


def _class(characters: str, *, negated: bool = False) -> str:
    ordered = sorted(characters)
    if len(ordered) == 1 and not negated:
        return escape(ordered[0])
    text = ""
    for _, run in groupby(enumerate(ordered), key=lambda item: ord(item[1]) - item[0]):
        members = [_escaped(character, r"\^-[]&~|") for _, character in run]
        text += f"{members[0]}-{members[-1]}" if len(members) > 2 else "".join(members)
    return f"[{'^' if negated else ''}{text}]"


def _escaped(character: str, special: str) -> str:
    return f"\\{character}" if character in special else character
