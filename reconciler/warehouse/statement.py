"""What an SQL statement is, before anybody runs it: which mistakes it has, and how it is written for an engine. Pure.

This is a seat belt, and makes mistakes visible in the pull request that brings them. What holds is the engine: its
locked process, or a role that may only read. The text that runs is written anew from what was parsed, without its
comments, so that nothing runs that was not seen here.

Importing this takes a tenth of a second (sqlglot): import it where a statement is looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import sqlglot.parser
from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError

from reconciler.warehouse import Query, QueryError
from reconciler.warehouse.tables import COLUMNS, DEPLOYMENTS_SQL, TABLES

#: How an engine wants a bound parameter: `$name` (DuckDB), `?` (Athena), or `:name` as SQLAlchemy's text() reads it.
Style = Literal["dollar", "question", "colon"]

#: What sqlglot itself stumbles with over some texts that are malformed.
_STUMBLES = (AttributeError, LookupError, TypeError)

# It logs what it cannot parse, beside raising it, or giving it a type of its own.
sqlglot.parser.logger.disabled = True

#: As many characters as a spec takes.
LIMIT = 16_384
#: For each `[` after another one sqlglot copies what is before it: 16 KB of subscripts take it twenty seconds.
_BRACKETS = 100


class Problem(NamedTuple):
    """A mistake: the id of its rule, one sentence, and what to write instead, or ""."""

    rule: str
    message: str
    hint: str = ""


class Narrowing(NamedTuple):
    """A column that has this one value in every row that a statement uses. `value` may be the name of a parameter."""

    column: str
    value: str
    is_parameter: bool


class Prepared(NamedTuple):
    """A statement as it is run."""

    sql: str
    parameters: tuple[str, ...]
    """Names, each once; with `question` one for each `?`, in their order."""
    tables: frozenset[str]
    """Those of the model analytics that it reads."""
    narrowed: tuple[Narrowing, ...]
    """Partitions of `inferences`: what lies outside of them cannot change the answer."""


class _RefusedError(Exception):
    """Nothing more can be said of the statement."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def problems(
    sql: str,
    dialect: str,
    *,
    tables: Mapping[str, Collection[str]] | None,
    parameters: Collection[str],
    elsewhere: bool = False,
) -> list[Problem]:
    """Every mistake that is certain, without asking an engine.

    `dialect`: sqlglot's name of it ("duckdb", "athena", "postgres", ...). `tables`: the columns of each table that
    there is, by name; None where that is not known. `elsewhere`: a name with a schema before it is somebody else's
    table, and may be read; otherwise it is a mistake. `parameters`: the names that are bound.
    """
    try:
        found = list(_problems(sql, dialect, tables, parameters, elsewhere))
    except _RefusedError as refused:
        found = [refused.problem]
    except RecursionError:
        found = [_TOO_DEEP]
    return [Problem(rule, _printable(message), _printable(hint)) for rule, message, hint in found]


def ready(query: Query, dialect: str, *, qualify: str = "", elsewhere: bool = False, style: Style) -> Prepared:
    """A question to an engine of the model analytics, as it is run. With `:build_id` bound it is a gate's, and excludes
    the candidate. Raises QueryError. How many columns it answers is left to the gate, which has its own words for it.
    """
    found = problems(query.sql, dialect, tables=COLUMNS, parameters=query.parameters, elsewhere=elsewhere)
    for problem in found:
        if problem.rule != "sql/one-column":
            reason = "NotAllowed" if problem.rule == "sql/not-allowed" else "Syntax"
            raise QueryError(reason, f"{problem.message}{problem.hint and f'; {problem.hint}'}")
    is_gate = "build_id" in query.parameters
    return prepared(query.sql, dialect, exclude_candidate=is_gate, qualify=qualify, style=style)


def prepared(sql: str, dialect: str, *, exclude_candidate: bool, qualify: str = "", style: Style) -> Prepared:
    """The statement as it is run. It must have no problems; raises ValueError where it cannot be parsed at all.

    `exclude_candidate`: the tables of the model analytics have only what was before `:as_of`, without `:build_id`. They
    are meant by their bare names, and by those with `qualify` before them, the schema or database that they are in.
    """
    try:
        statement = _parsed(sql, dialect)
        tables, narrowed = _used(statement, qualify), _narrowed(statement, sql, qualify)
        if exclude_candidate:
            statement = _placed(statement, sql, qualify)
        return Prepared(*_written(statement, sql, dialect, style), tables, narrowed)
    except _RefusedError as refused:
        raise ValueError(refused.problem.message) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP.message) from None


def _printable(text: str) -> str:
    """What a query says of itself may be a command to the terminal that shows it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


_TOO_DEEP = Problem("sql/too-deep", "the query is nested too deeply", "take it apart with WITH")
_ONE_STATEMENT = "exactly one SELECT is possible here"


# -- parsing ---------------------------------------------------------------------------------------------------------


def _parsed(sql: str, dialect: str) -> exp.Expr:
    """The statement, in which parameters are columns with a name that nobody else can have (`_mark`).

    sqlglot takes `:name` for something else in places where some dialects have a colon of their own.
    """
    if len(sql) > LIMIT:
        raise _RefusedError(Problem("sql/too-long", f"the query has {len(sql)} characters; {LIMIT} are the most"))
    tokens = _tokens(sql, dialect)
    text = list(sql[: tokens[-1].end + 1])
    for colon, name in reversed(_parameters(tokens)):
        text[colon.start : name.end + 1] = _mark(sql, name.text)
    try:
        return sqlglot.parse_one("".join(text), dialect=dialect)
    except _STUMBLES:
        raise _RefusedError(Problem("sql/syntax", "the query cannot be parsed")) from None
    except SqlglotError as error:
        raise _RefusedError(Problem("sql/syntax", f"the query cannot be parsed: {_said(error, sql)}")) from None


def _tokens(sql: str, dialect: str) -> list[Token]:
    """Those of the one statement. What comes after it may be blanks, comments and semicolons."""
    try:
        tokens = Dialect.get_or_raise(dialect).tokenize(sql)
    except SqlglotError as error:
        raise _RefusedError(Problem("sql/syntax", f"the query cannot be read: {_said(error, sql)}")) from None
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise _RefusedError(Problem("sql/one-statement", f"there is no statement; {_ONE_STATEMENT}"))
    if any(token.token_type is TokenType.SEMICOLON for token in tokens):
        raise _RefusedError(Problem("sql/one-statement", f"there are several statements; {_ONE_STATEMENT}"))
    first = next((token for token in tokens if token.token_type is not TokenType.L_PAREN), tokens[0])
    if first.token_type not in (TokenType.SELECT, TokenType.WITH, TokenType.FROM):
        message = f"{first.text.upper()[:40]} is no query; {_ONE_STATEMENT}"
        raise _RefusedError(Problem("sql/one-statement", message, "begin with SELECT, or WITH"))
    if sum(token.token_type is TokenType.L_BRACKET for token in tokens) > _BRACKETS:
        raise _RefusedError(_TOO_DEEP)
    return tokens


def _parameters(tokens: list[Token]) -> list[tuple[Token, Token]]:
    """The colon and the name of each `:name`. Where something touches the colon from the left it is something else:
    `a[1:n]`, `{k:v}`, `x::int`.
    """
    found = []
    for before, colon, name in zip([None, *tokens], tokens, tokens[1:], strict=False):
        if colon.token_type is not TokenType.COLON or name.start != colon.end + 1:
            continue
        touched = before is not None and before.end + 1 == colon.start and before.text[-1:] not in "(,=<>+-*/%|&[{"
        if not touched and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.text):
            found.append((colon, name))
    return found


def _mark(sql: str, name: str) -> str:
    """No query holds its own digest."""
    return f"trueup_{hashlib.sha256(sql.encode('utf-8', 'replace')).hexdigest()[:24]}_{name}"


def _said(error: SqlglotError, sql: str) -> str:
    """What sqlglot says of it, without its colours, and with the line, from 1."""
    if not isinstance(error, ParseError) or not error.errors:
        return str(error.__cause__ or error).splitlines()[0][:200]
    first = error.errors[0]
    said = re.sub(r" <class '.*'>", " an expression", first["description"]).rstrip(".")
    near = first["highlight"].replace(_mark(sql, ""), ":")
    return f"{said[0].lower()}{said[1:]} (line {first['line']}{near and f', near {near[:40]!r}'})"


# -- what is wrong ---------------------------------------------------------------------------------------------------

#: These change something, wherever they stand.
_EFFECTS = (
    exp.DML,
    exp.DDL,
    exp.Command,
    exp.Into,
    exp.Lock,
    exp.Copy,
    exp.Drop,
    exp.Alter,
    exp.Set,
    exp.Pragma,
    exp.Attach,
    exp.Detach,
    exp.Use,
    exp.Kill,
    exp.Transaction,
)

#: Functions that may stand where a table stands; all others may read files, or the network.
_TABLE_FUNCTIONS = re.compile(
    r"unnest|explode|flatten|range|sequence|(?:exploding_)?generate_(?:series|date_array|timestamp_array)"
    r"|jsonb?_(?:each|tree|array_elements)(?:_text)?"
)

#: Functions that do something, wait, or read what is no table, over all engines that are known.
_FUNCTIONS = re.compile(
    r"(?:"
    # DuckDB
    r"read_\w+|scan_\w+|\w+_scan|sniff_\w+|parquet_\w+|duckdb_\w+|pragma_\w+|glob|query|query_table|getenv|getvariable"
    r"|current_setting|json_execute_serialized_sql|json_serialize_plan|sleep_ms|write_log|which_secret|load_aws_\w+"
    r"|(?:force_)?checkpoint|(?:enable|disable|truncate|create|destroy|register|deregister)_\w+"
    # sequences
    r"|nextval|currval|lastval|setval"
    # PostgreSQL, Redshift
    r"|pg_(?!typeof$|size_pretty$|column_size$)\w+|lo_\w+|dblink\w*|set_config|\w+_to_xml\w*|ts_stat|txid_current"
    # MySQL, SQLite, ClickHouse
    r"|sleep|sleepeachrow|benchmark|load_file|load_extension|get_lock|release_\w*locks?|(?:master|source)_pos_wait"
    r"|wait_\w+|sys_e\w+|readfile|writefile|edit|fts3_tokenizer|file|url|s3|remote"
    # Snowflake, BigQuery, SQL Server, Oracle
    r"|system\$\w+|external_query|openrowset|opendatasource|openquery|xp_\w+|dbms_\w+|utl_\w+|httpuritype|dburltype"
    r")"
)
#: PostgreSQL and others read U&"pg\005fsleep" as pg_sleep; sqlglot reads something else.
_ESCAPES = re.compile(r"""(?<!\w)u&["']""", re.IGNORECASE)
#: Catalogs with what is nobody's analytics (pg_authid), Snowflake's stages (@stage), and files.
_NO_TABLES = re.compile(r"pg_.*|@.*|.*://.*", re.IGNORECASE | re.DOTALL)
#: Whole schemas of such functions.
_SCHEMAS = re.compile(r"(?:dbms|utl|sys|system|xp)(?:_\w+)?")


def _problems(
    sql: str,
    dialect: str,
    tables: Mapping[str, Collection[str]] | None,
    parameters: Collection[str],
    elsewhere: bool,
) -> Iterator[Problem]:
    tokens = _tokens(sql, dialect)
    named = dict.fromkeys(name.text for _, name in _parameters(tokens))
    for name in named:
        if name not in parameters:
            hint = _nearest(name, parameters, ":") or f"these are bound: {', '.join(f':{each}' for each in parameters)}"
            yield Problem("sql/unknown-parameter", f"there is no parameter :{name}", hint)
    if any(comment.startswith(("!", "M!")) for token in tokens for comment in token.comments):
        yield Problem("sql/not-allowed", "a comment that MySQL executes is not possible here", "leave /*! ... */ out")
    if _ESCAPES.search(sql):
        message = "a name or a text with escapes (U&) is not possible here: it may stand for any other"
        yield Problem("sql/not-allowed", message, "write the characters themselves")
    statement = _parsed(sql, dialect)
    if not isinstance(statement, exp.Query):
        raise _RefusedError(Problem("sql/one-statement", f"{statement.key.upper()} is no query; {_ONE_STATEMENT}"))
    for effect in statement.find_all(*_EFFECTS):
        name = effect.key.upper()
        yield Problem("sql/not-allowed", f"{name} is not possible in a query that only reads", f"leave {name} out")
    if placeholder := statement.find(exp.Placeholder, exp.Parameter):
        text = placeholder.sql(dialect)
        hint = f"write :{placeholder.name}" if placeholder.name in parameters else "write :model and the like"
        yield Problem("sql/unknown-parameter", f"{text} is no parameter", hint)
    if (count := _columns(statement)) is not None and count != 1:
        yield Problem("sql/one-column", f"the query answers {count} columns, where one is wanted", "select one value")
    yield from dict.fromkeys(_functions(statement))
    yield from dict.fromkeys(_tables(statement, tables, elsewhere))
    if tables is not None:
        yield from dict.fromkeys(_unknown_columns(statement, tables, _mark(sql, "")))
    _written(_placed(statement, sql, ""), sql, dialect, "dollar")  # what is read may still be too deep to be written


def misplaced(sql: str, dialect: str) -> list[Problem]:
    """Parameters where Athena takes none: it does in WHERE and in JOIN, and nowhere else. Empty for a statement that
    cannot be parsed, of which `problems` tells.
    """
    try:
        statement = _parsed(sql, dialect)
    except (_RefusedError, RecursionError):
        return []
    mark = _mark(sql, "")
    columns = [column for column in statement.find_all(exp.Column) if column.name.startswith(mark)]
    names = dict.fromkeys(column.name.removeprefix(mark) for column in columns if not _is_compared(column))
    return [
        Problem(
            "sql/parameter-place",
            f":{name} stands where Athena takes no parameter, which it does in WHERE and in JOIN",
            f"compare with :{name} in WHERE",
        )
        for name in names
    ]


def _is_compared(column: exp.Column) -> bool:
    above = column.find_ancestor(exp.Where, exp.Join, exp.Select)
    # Among the selected columns there may be a WHERE as well: count(*) FILTER (WHERE ...).
    return isinstance(above, exp.Join) or (isinstance(above, exp.Where) and isinstance(above.parent, exp.Select))


def _columns(statement: exp.Query) -> int | None:
    """How many columns it answers; None where only the engine knows."""
    selected = statement.selects
    if not selected or any(item.is_star or item.find(exp.Columns) for item in selected):
        return None
    # Of several rows of columns (`unnest(struct)`) too, only the engine knows.
    return None if any(item.find(exp.Explode, exp.Unnest) for item in selected) else len(selected)


def _functions(statement: exp.Expr) -> Iterator[Problem]:
    for function in statement.find_all(exp.Func):
        names = _names(function)
        parent = function.parent
        schema = parent.this.name.lower() if isinstance(parent, exp.Dot) and parent.expression is function else ""
        if any(map(_FUNCTIONS.fullmatch, names)) or (schema and _SCHEMAS.fullmatch(schema)):
            yield _not_allowed(names[0])
    for source in statement.find_all(exp.Table, exp.Lateral, exp.TableFromRows):
        function = source.this
        if isinstance(function, exp.Func) and not any(map(_TABLE_FUNCTIONS.fullmatch, _names(function))):
            yield _not_allowed(_names(function)[0])


def _names(function: exp.Func) -> list[str]:
    if isinstance(function, exp.Anonymous):
        return [function.name.lower()]
    return [name.lower() for name in function.sql_names()]


def _not_allowed(function: str) -> Problem:
    message = (
        f"the function {function} is not possible here: a query reads the tables of the analytics, and nothing else"
    )
    return Problem("sql/not-allowed", message)


def _tables(statement: exp.Expr, tables: Mapping[str, Collection[str]] | None, elsewhere: bool) -> Iterator[Problem]:
    if elsewhere or tables is None:
        for table in statement.find_all(exp.Table):
            full = ".".join(part.name for part in table.parts)
            if any(_NO_TABLES.fullmatch(part.name) for part in table.parts):
                yield Problem("sql/not-allowed", f"{full[:100]!r} is no table that a query may read here")
    if tables is None:
        return
    defined = {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
    for name in sorted(defined & set(tables)):
        # Otherwise it would depend on the place what the name means, and whether the candidate is in it.
        message = f"WITH defines {name}, which is a table of the analytics"
        yield Problem("sql/hidden-table", message, f"choose another name, such as {name}_of_model")
    for table in _named_tables(statement):
        name = table.name.lower()
        if table.db:
            if not elsewhere:
                hint = f"write {name}" if name in tables else _nearest(name, tables)
                full = ".".join(part.name for part in table.parts)
                yield Problem("sql/unknown-table", f"there is no table {full!r}", hint)
        elif name not in tables and name not in defined:
            hint = _nearest(name, [*tables, *defined]) or f"these exist: {', '.join(tables)}"
            yield Problem("sql/unknown-table", f"there is no table {table.name[:100]!r}", hint)


def _named_tables(statement: exp.Expr) -> Iterator[exp.Table]:
    return (table for table in statement.find_all(exp.Table) if isinstance(table.this, exp.Identifier))


#: Columns that tables have besides their own.
_HIDDEN = frozenset(("rowid", "filename", "$path"))


def _unknown_columns(statement: exp.Expr, tables: Mapping[str, Collection[str]], mark: str) -> Iterator[Problem]:
    """Only what is certain: a column that its table does not have, or that no source of the whole query can have."""
    there = {table.name.lower() for table in _named_tables(statement)} & set(tables)
    names = dict.fromkeys(name for table in sorted(there) for name in tables[table])
    possible = _HIDDEN | _invented(statement) | set(names)
    # What comes out of these has names that only the engine knows.
    is_known = (
        there
        and not statement.find(exp.UDTF, exp.Pivot, exp.Columns)
        and not any(isinstance(table.this, exp.Func) or table.db for table in statement.find_all(exp.Table))
    )
    for column in statement.find_all(exp.Column):
        name = column.name.lower()
        if isinstance(column.this, exp.Star) or name.startswith((mark, "_")) or not name.isidentifier():
            continue
        select = column.find_ancestor(exp.Select)
        if column.table:
            table = _sources(select).get(column.table.lower(), "") if select else ""
            if table in tables and name not in {*tables[table], *_HIDDEN}:
                yield _unknown_column(column.name, tables[table], f"{table} has")
        elif is_known and name not in possible:
            yield _unknown_column(column.name, names, "there is")


def _invented(statement: exp.Expr) -> set[str]:
    """Names that the query makes itself."""
    found = {alias.alias.lower() for alias in statement.find_all(exp.Alias, exp.CTE)}
    for alias in statement.find_all(exp.TableAlias):
        found |= {alias.name.lower(), *(column.name.lower() for column in alias.columns)}
    for each in statement.find_all(exp.Lambda, exp.PropertyEQ, exp.Kwarg, exp.Window):
        parts = each.expressions if isinstance(each, exp.Lambda) else [each.this]
        found |= {part.name.lower() for part in parts}
    return found


def _sources(select: exp.Select) -> dict[str, str]:
    """The table of each alias, where it is one with columns of its own names."""
    from_ = select.args.get("from_")
    items = [from_.this] if from_ else []
    items += [join.this for join in select.args.get("joins") or ()]
    return {
        item.alias_or_name.lower(): item.name.lower()
        for item in items
        if isinstance(item, exp.Table) and isinstance(item.this, exp.Identifier) and not item.db
        if not item.args.get("pivots") and not item.alias_column_names
    }


def _unknown_column(name: str, columns: Collection[str], of: str) -> Problem:
    hint = _nearest(name, columns) or f"{of} {', '.join(dict.fromkeys(columns))}"
    return Problem("sql/unknown-column", f"{of} no column {name[:100]!r}", hint)


def _nearest(name: str, known: Collection[str], before: str = "") -> str:
    close = get_close_matches(name.lower(), known, 1)
    return f"write {before}{close[0]}" if close else ""


# -- how it is run ---------------------------------------------------------------------------------------------------


def _used(statement: exp.Expr, qualify: str) -> frozenset[str]:
    return frozenset(table.name.lower() for table in _named_tables(statement) if _is_ours(table, qualify))


def _is_ours(table: exp.Table, qualify: str) -> bool:
    return table.name.lower() in TABLES and table.db.lower() in ("", qualify.lower())


def _placed(statement: exp.Expr, sql: str, qualify: str) -> exp.Expr:
    """Every table of the model analytics becomes a subquery of what a gate may see of it, under the same name."""
    for table in [table for table in _named_tables(statement) if _is_ours(table, qualify)]:
        name = table.name.lower()
        place = {key: table.args.get(key) for key in ("this", "db", "catalog")}
        seen = _seen(name, place)
        for parameter in list(seen.find_all(exp.Placeholder)):
            parameter.replace(exp.column(_mark(sql, parameter.name)))
        rest = {key: value for key, value in table.args.items() if value and key not in place}
        table.replace(exp.Subquery(**{"alias": exp.TableAlias(this=exp.to_identifier(name)), **rest, "this": seen}))
    return statement


def _seen(name: str, place: Mapping[str, Any]) -> exp.Select:
    """What a gate may see of the table that is in this place."""
    if name != "deployments":
        return exp.select("*").from_(exp.Table(**place)).where(TABLES[name].excluded)
    # In the view itself a later promotion already ends an earlier one. So it is made anew, as it was then; and so that
    # parameters stand in WHERE alone, as Athena wants it.
    promotions = exp.Table(**{**place, "this": exp.to_identifier("promotions")})
    view = sqlglot.parse_one(DEPLOYMENTS_SQL, into=exp.Select, dialect="duckdb")
    return view.from_(promotions).where("finished_at <= :as_of")


def _narrowed(statement: exp.Expr, sql: str, qualify: str) -> tuple[Narrowing, ...]:
    """What every mention of `inferences` has in common."""
    found = [
        set(_narrowings(table, _mark(sql, "")))
        for table in _named_tables(statement)
        if table.name.lower() == "inferences" and _is_ours(table, qualify)
    ]
    return tuple(sorted(set.intersection(*found))) if found else ()


def _narrowings(table: exp.Table, mark: str) -> Iterator[Narrowing]:
    """From `column = value` among what a WHERE joins with AND. True of outer joins, too: NULL equals nothing."""
    select = table.find_ancestor(exp.Select)
    if select is None or (where := select.args.get("where")) is None:
        return
    is_alone = not select.args.get("joins") and not select.args.get("laterals")
    partitions = {column.name for column in TABLES["inferences"].columns if column.partition}
    for each in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
        equal = each.unnest()
        if not isinstance(equal, exp.EQ):
            continue
        for column, value in ((equal.this, equal.expression), (equal.expression, equal.this)):
            if not isinstance(column, exp.Column) or column.name.lower() not in partitions:
                continue
            if column.table.lower() != table.alias_or_name.lower() and not (is_alone and not column.table):
                continue
            if isinstance(value, exp.Literal) and value.is_string:
                yield Narrowing(column.name.lower(), value.name, is_parameter=False)
            elif isinstance(value, exp.Column) and value.name.startswith(mark):
                yield Narrowing(column.name.lower(), value.name.removeprefix(mark), is_parameter=True)


def _written(statement: exp.Expr, sql: str, dialect: str, style: Style) -> tuple[str, tuple[str, ...]]:
    """The text, and the parameters in it. With `colon`, no other colon of the text reads as a parameter's."""
    order: list[str] = []

    def written(match: re.Match[str]) -> str:
        order.append(match[1])
        return {"dollar": f"${match[1]}", "question": "?", "colon": f":{match[1]}"}[style]

    text = statement.sql(dialect=dialect, comments=False, unsupported_level=ErrorLevel.IGNORE)
    if style == "colon":
        text = re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", text)  # SQLAlchemy's own expression for them
    text = re.sub(rf"{_mark(sql, '')}(\w+)", written, text)
    return text, tuple(order if style == "question" else dict.fromkeys(order))
