"""Python files of the reference platform -> the automations in them, without running a line.

Only the syntax tree is looked at. Known is what the tree alone decides: literals, names of the module that are set
once or again in order, constants of other files that were given, the SDK's constructors and enumerations, f-strings
and sums of all these. Everything else is `Unknown`, with a reason that names what would have had to run.

The files are strangers' files. Nothing of them is compiled or imported; size is bounded before the tree is made, and
what the tree comes to is bounded while it is read (names that double a list forty times are a short program).
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.importing import sdk
from reconciler.importing.expressions import Names, TooMuchError, is_sdk
from reconciler.importing.values import Data, Made, Unknown, Value
from schemas.problem import Problem

#: Bytes of a Python file. A syntax tree takes several hundred times the memory of its source.
MAXIMUM_BYTES = 256 << 10
#: For the line of a mistake, the parser opens the file that it was told: by default "<unknown>" of the current folder,
#: which may be anybody's pipe. This one cannot be there.
NOWHERE = "/dev/null/automations.py"


@dataclass(frozen=True, slots=True)
class Module:
    """What a file says: its names at the end, its automations, and what is wrong with it."""

    names: Mapping[str, Value]
    automations: tuple[Value, ...] = ()
    problems: tuple[Problem, ...] = ()


#: Gives the module that an import means, by its dotted name (with leading dots, if it is relative): None if it is none
#: of the files that were given.
Resolve = Callable[[str], "Module | None"]


def speaks_of_sdk(content: bytes) -> bool:
    """Whether a Python file can be one of the platform at all: what the platform's own command looks for."""
    return b"qwak" in content or b"frogml" in content


def read(file: str, content: bytes, resolve: Resolve) -> Module:
    """Reads a file. Never raises for what is in it, and never runs it."""
    tree = _tree(file, content)
    if isinstance(tree, Problem):
        return Module({}, (), (tree,))
    reader = _Module(file, content.decode("utf-8-sig").splitlines(), resolve=resolve)
    try:
        reader.read(tree)
        return Module(reader.names, tuple(reader.automations()), tuple(reader.lost_automations(tree)))
    except TooMuchError:
        message = "The values in the file come to more than is read of a Python file."
        return Module({}, (), (Problem(file, 1, 1, (), "import/python", message, "write them out"),))


def _tree(file: str, content: bytes) -> ast.Module | Problem:
    def problem(message: str, hint: str = "", line: int = 1, column: int = 1) -> Problem:
        return Problem(file, line, column, (), "import/python", message, hint)

    if len(content) > MAXIMUM_BYTES:
        message = f"The file has {len(content):,} bytes and {MAXIMUM_BYTES:,} are read of a Python file."
        return problem(message, "give the files that define automations")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", "replace").splitlines() or [""]
        return problem("The file is not UTF-8 from here on.", "save it as UTF-8", len(before), len(before[-1]) + 1)
    if "\0" in text:
        return problem("This is a binary file, and no Python.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python thinks of "\d" helps nobody here
            return ast.parse(text, NOWHERE)
    except SyntaxError as error:
        hint = "the platform would not have read it either; if it is Python 2, convert it first"
        return problem(f"This is not Python 3: {error.msg}.", hint, error.lineno or 1, max(error.offset or 1, 1))
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        kind = "is nested too deeply" if isinstance(error, RecursionError | MemoryError) else "cannot be parsed"
        return problem(f"The file {kind}.", "give the files that define automations")


@dataclass(slots=True)
class _Module(Names):
    """One module while its statements are read in order."""

    resolve: Resolve = field(kw_only=True)

    def read(self, tree: ast.Module) -> None:
        for statement in tree.body:
            self._statement(statement)

    def automations(self) -> Iterator[Value]:
        """The objects that a name holds at the end, as the platform's command finds them; each once."""
        seen: set[int] = set()
        for value in self.names.values():
            is_one = isinstance(value.data, Made) and value.data.name == sdk.AUTOMATION
            if is_one and value.place.file == self.file and id(value) not in seen:
                seen.add(id(value))
                yield self.as_changed(value)

    def lost_automations(self, tree: ast.Module) -> Iterator[Problem]:
        """Automations that are made where only running the file would tell how often and with what."""
        held = {value.place for value in self.automations()}
        reasons = {value.place: value.data.why for value in self.names.values() if isinstance(value.data, Unknown)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or self.constructor(node.func) != sdk.AUTOMATION:
                continue
            place = self.place(node)
            if place in held:
                continue
            hint = "write it as NAME = Automation(...), outside functions, loops and conditions"
            message = "An automation is made here that no name of the module holds: it was not imported."
            if place in reasons:
                message = f"This automation was not imported: it {reasons[place]}."
            yield Problem(place.file, place.line, place.column, (), "import/unknown", message, hint)

    def _statement(self, statement: ast.stmt) -> None:  # noqa: PLR0912 - one arm for each kind of statement
        match statement:
            case ast.Import() | ast.ImportFrom():
                self._import(statement)
            case ast.Assign(targets=targets, value=expression):
                value = self.value(expression)
                for target in targets:
                    self._bind(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as expression):
                self._bind(target, self.value(expression))
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=expression) if name in self.names:
                before = self.names[name]
                read = ast.copy_location(ast.Name(name, ast.Load()), statement)
                self.names[name] = self.value(ast.copy_location(ast.BinOp(read, ast.Add(), expression), statement))
                # A list is lengthened in place, for all that hold it: what else holds it is known no more.
                self._change(before, statement)
            case ast.Delete(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        self.names.pop(target.id, None)
                    else:
                        self._forget(target, statement)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=receiver))):
                self._forget(receiver, statement)  # `tags.append(...)`
            case ast.Expr():
                pass
            case ast.If(test=test) if _is_main(test):
                pass  # the platform imports the file
            case ast.Try():
                self._try(statement)
            case _:
                self._forget_all_in(statement)

    def _try(self, statement: ast.Try) -> None:
        """`try: import frogml ... except ImportError: import qwak ...` is how files work with both."""
        branches = [statement.body, *(handler.body for handler in statement.handlers)]
        if all(isinstance(s, ast.Import | ast.ImportFrom | ast.Pass) for branch in branches for s in branch):
            for branch in reversed(branches):
                for inner in branch:
                    self._statement(inner)
        else:
            self._forget_all_in(statement)

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                # `import a.b` binds a; `import a.b as c` binds c to a.b.
                name = alias.asname or alias.name.partition(".")[0]
                self._bind_import(name, alias.name if alias.asname else name, statement)
            return
        module = "." * statement.level + (statement.module or "")
        if is_sdk(module):
            for alias in statement.names:
                if alias.name == "*":
                    known = (*sdk.CONSTRUCTORS, *sdk.ENUMERATIONS, *sdk.SAME)
                    self.imported.update({name: f"{module}.{name}" for name in known})
                else:
                    self._bind_import(alias.asname or alias.name, f"{module}.{alias.name}", statement)
            return
        other = self.resolve(module)
        for alias in statement.names:
            if alias.name == "*":
                self._rebind(other.names if other else {})
                continue
            name = alias.asname or alias.name
            inner = module if module.endswith(".") else f"{module}."
            whole = None if other else self.resolve(f"{inner}{alias.name}")
            if other is not None and alias.name in other.names:
                self._rebind({name: other.names[alias.name]})
            elif whole is not None:
                self._rebind({name: Value(dict(whole.names), self.place(statement))})
            else:
                why = f"comes from the module {module}, which is not among the files that were given"
                self._rebind({name: Value(Unknown(why), self.place(statement))})

    def _bind_import(self, name: str, dotted: str, statement: ast.stmt) -> None:
        if is_sdk(dotted):
            self.names.pop(name, None)
            self.imported[name] = dotted
            return
        module = self.resolve(dotted)
        why = f"comes from the module {dotted}, which is not among the files that were given"
        data: Data = dict(module.names) if module else Unknown(why)
        self._rebind({name: Value(data, self.place(statement))})

    def _rebind(self, names: Mapping[str, Value]) -> None:
        for name, value in names.items():
            self.imported.pop(name, None)
            self.names[name] = value

    def _bind(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name(id=name):
                self._rebind({name: value})
            case ast.Tuple(elts=parts) | ast.List(elts=parts) if (
                isinstance(value.data, list)
                and len(parts) == len(value.data)
                and not any(isinstance(part, ast.Starred) for part in parts)
            ):
                for part, item in zip(parts, value.data, strict=True):
                    self._bind(part, item)
            case ast.Tuple() | ast.List() | ast.Starred():
                self._forget_all_in(target)
            case _:
                self._forget(target, target)

    def _forget(self, target: ast.expr, statement: ast.AST) -> None:
        """`spec.git_branch = ...`, `tags.append(...)`: the object is not what it was when it was made."""
        while isinstance(target, ast.Attribute | ast.Subscript | ast.Call):
            target = target.func if isinstance(target, ast.Call) else target.value
        if isinstance(target, ast.Name) and target.id in self.names:
            self._change(self.names[target.id], statement)

    def _change(self, value: Value, statement: ast.AST) -> None:
        if isinstance(value.data, list | dict | Made):
            self.changed[id(value)] = f"is changed after it was made, on line {getattr(statement, 'lineno', 1)}"
            self.kept.append(value)

    def _forget_all_in(self, node: ast.AST) -> None:
        """Names that are set where it cannot be known whether, or how often, the statement runs."""
        kind = type(node).__name__.lower().removeprefix("async")
        names: dict[str, ast.AST] = {}
        pending: list[ast.AST] = [node]
        while pending:
            inner = pending.pop()
            match inner:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    names[name] = inner
                    continue  # what is in it has names of its own
                case ast.Lambda():
                    continue
                case ast.Name(id=name, ctx=ast.Store()):
                    names[name] = inner
                case ast.Import() | ast.ImportFrom():
                    for alias in inner.names:
                        names[alias.asname or alias.name.partition(".")[0]] = inner
                case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                    self._forget(inner, inner)
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=receiver))):
                    self._forget(receiver, inner)
            pending += ast.iter_child_nodes(inner)
        words = {"functiondef": "is a function", "classdef": "is a class of the file"}
        for name, where in names.items():
            why = words.get(kind) or f"is set inside a statement ({kind}) that may run or not"
            self._rebind({name: Value(Unknown(why), self.place(where))})


def _is_main(test: ast.expr) -> bool:
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()]):
            return True
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
    return False
