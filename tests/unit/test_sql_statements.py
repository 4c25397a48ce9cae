"""The static checks of SQL, how a statement is written for an engine, and the tables of the analytics."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.records import (
    Approval,
    Cause,
    Gate,
    Identity,
    Outcome,
    Phase,
    Promotion,
    PromotionRequest,
    PromotionStatus,
    Verdict,
)
from reconciler.warehouse import Query, QueryError
from reconciler.warehouse.statement import LIMIT, Narrowing, Prepared, Problem, misplaced, prepared, problems, ready
from reconciler.warehouse.tables import (
    COLUMNS,
    PARAMETERS,
    PROMOTIONS,
    TABLES,
    promotion_key,
    promotion_row,
    stored,
    to_line,
)
from tests.conftest import examples


def found(sql: str, dialect: str = "duckdb") -> list[Problem]:
    return problems(sql, dialect, tables=COLUMNS, parameters=PARAMETERS)


def rules(sql: str, dialect: str = "duckdb") -> set[str]:
    return {problem.rule for problem in found(sql, dialect)}


# ------------------------------------------------------------------------------------------------- what is all right


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "select 1;",
        "select 1; -- the threshold",
        "/* the threshold */ select 0.65 ;; /* is this */",
        "(select 1)",
        "(select 1) union all (select 2) order by 1 limit 1",
        "select ';'",
        "select :as_of - interval 7 day",
        "select max(value) from build_metrics where model = :model and name = 'f1'",
        "select max(value) from Build_Metrics M where M.MODEL=:model",
        "select max(metrics['f1']) from builds where metrics['f1'] < 1 and parameters['a:b'] = 'x:model'",
        "select max(f) from (select metrics['f1'] as f from builds where model = :model)",
        "select max(value) from build_metrics m join deployments d using (build_id) where d.replaced_at is null",
        "with best as (select max(value) as v from build_metrics) select v from best",
        "with recursive r(n) as (select 1 union all select n + 1 from r where n < 9) select max(n) from r",
        "select count(*) filter (where status >= 500) / count(*) from inferences where model = :model",
        "select quantile_cont(duration_ms, 0.99) from inferences where requested_at > :as_of - interval 1 day",
        "select sum(x) from (select unnest(range(10)) as x)",
        "select max(i) from range(10) t(i)",
        "select list_sum(list_transform([1, 2], x -> x + 1))",
        "select avg(v) over (order by at) as w from (select value v, finished_at at from build_metrics) qualify w > 1",
        "select * from build_metrics",
        "select columns(*) from builds",
        "select finished_at - started_at as took from builds order by took desc limit 1",
        "select (select max(value) from build_metrics b where b.build_id = builds.build_id) from builds limit 1",
        "select [10, 20][1:1][1]",
        "select struct_pack(k := 1).k",
    ],
)
def test_a_query_that_reads_has_no_problem(sql: str) -> None:
    assert found(sql) == []


def test_a_table_of_somebody_else_is_read_where_it_is_allowed() -> None:
    sql = "select max(score) from marketing.campaigns c where c.month = 7"
    assert problems(sql, "athena", tables=COLUMNS, parameters=PARAMETERS, elsewhere=True) == []
    assert rules(sql) == {"sql/unknown-table"}


def test_where_tables_are_not_known_none_is_unknown() -> None:
    assert problems("select max(a) from b.c, d", "postgres", tables=None, parameters=PARAMETERS) == []


# ------------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("", "sql/one-statement"),
        (" ; -- nothing", "sql/one-statement"),
        ("select 1; select 2", "sql/one-statement"),
        ("select 1; drop table builds", "sql/one-statement"),
        ("select 1 \x00; drop table builds", "sql/one-statement"),
        ("drop table builds", "sql/one-statement"),
        ("copy builds to '/tmp/x'", "sql/one-statement"),
        ("attach '/tmp/x.db'", "sql/one-statement"),
        ("install httpfs", "sql/one-statement"),
        ("set memory_limit = '99GB'", "sql/one-statement"),
        ("pragma database_list", "sql/one-statement"),
        ("call pragma_version()", "sql/one-statement"),
        ("explain analyze select 1", "sql/one-statement"),
        ("summarize builds", "sql/one-statement"),
        ("values (1)", "sql/one-statement"),
        ("with x as (insert into builds values (1) returning *) select * from x", "sql/not-allowed"),
        ("with x as (delete from builds returning *) select * from x", "sql/not-allowed"),
        ("with x as (update builds set model = 'x' returning *) select * from x", "sql/not-allowed"),
        ("select 1 into builds", "sql/not-allowed"),
        ("select value from build_metrics for update", "sql/not-allowed"),
        ("select max(value) from bild_metrics", "sql/unknown-table"),
        ("select max(value) from main.build_metrics", "sql/unknown-table"),
        ("select * from '/etc/passwd'", "sql/unknown-table"),
        ("select * from 's3://bucket/x.parquet'", "sql/unknown-table"),
        ("select * from information_schema.tables", "sql/unknown-table"),
        ("with builds as (select 1) select * from builds", "sql/hidden-table"),
        ("select max(vlaue) from build_metrics", "sql/unknown-column"),
        ("select max(m.metric) from build_metrics m, builds b", "sql/unknown-column"),
        ("select max(value) from build_metrics where model = :modle", "sql/unknown-parameter"),
        ("select max(value) from build_metrics where model = $model", "sql/unknown-parameter"),
        ("select max(value) from build_metrics where model = ?", "sql/unknown-parameter"),
        ("select name, value from build_metrics", "sql/one-column"),
        ("select 1, 2 union select 3, 4", "sql/one-column"),
        ("selectt 1", "sql/one-statement"),
        ("select case when 1 from builds", "sql/syntax"),
        ("select 'never closed", "sql/syntax"),
    ],
)
def test_a_mistake_has_its_rule(sql: str, rule: str) -> None:
    assert rules(sql) == {rule} or (rule == "sql/not-allowed" and rule in rules(sql))


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("duckdb", "select * from read_text('/etc/passwd')"),
        ("duckdb", "select content from read_blob('/etc/passwd')"),
        ("duckdb", "select * from read_csv('/etc/passwd')"),
        ("duckdb", "select * from read_json_auto('/etc/passwd')"),
        ("duckdb", "select * from read_parquet(['/etc/passwd'])"),
        ("duckdb", "select * from parquet_metadata('/etc/passwd')"),
        ("duckdb", "select * from sniff_csv('/etc/passwd')"),
        ("duckdb", "select * from glob('/etc/*')"),
        ("duckdb", "select count(*) from range(3) t(i), lateral (select * from read_text('/etc/passwd'))"),
        ("duckdb", "select 1 where exists (from read_text('/etc/passwd'))"),
        ("duckdb", "from query('select 1')"),
        ("duckdb", "from query_table('builds')"),
        ("duckdb", "select getvariable('x')"),
        ("duckdb", "select getenv('HOME')"),
        ("duckdb", "select current_setting('secret_directory')"),
        ("duckdb", "select * from duckdb_settings()"),
        ("duckdb", "select * from pragma_database_size()"),
        ("duckdb", "select * from enable_logging()"),
        ("duckdb", "select * from checkpoint()"),
        ("duckdb", "select * from json_execute_serialized_sql('{}')"),
        ("duckdb", "select sleep_ms(100000)"),
        ("duckdb", "select write_log('x')"),
        ("duckdb", "select nextval('s')"),
        ("duckdb", "select 's'.nextval()"),
        ("duckdb", "select \"read_text\"('x')"),
        ("postgres", "select pg_sleep(10)"),
        ("postgres", "select pg_catalog.pg_sleep(10)"),
        ("postgres", "select pg_read_file('/etc/passwd')"),
        ("postgres", "select pg_terminate_backend(1)"),
        ("postgres", "select pg_advisory_lock(1)"),
        ("postgres", "select lo_import('/etc/passwd')"),
        ("postgres", "select * from dblink('x', 'drop table y') as t(a int)"),
        ("postgres", "select setval('s', 1)"),
        ("postgres", "select set_config('role', 'postgres', false)"),
        ("postgres", "select query_to_xml('delete from t', true, true, '')"),
        ("mysql", "select sleep(10)"),
        ("mysql", "select benchmark(1e9, md5('x'))"),
        ("mysql", "select load_file('/etc/passwd')"),
        ("mysql", "select 1 /*!50000 into outfile '/tmp/x' */"),
        ("mysql", "select /*M! sleep(10), */ 1"),
        ("sqlite", "select load_extension('x')"),
        ("snowflake", "select system$cancel_all_queries(1)"),
        ("bigquery", "select * from external_query('x', 'select 1')"),
        ("tsql", "select * from openrowset('x', 'y', 'z')"),
        ("oracle", "select utl_http.request('http://x') from dual"),
        ("clickhouse", "select * from url('http://x', CSV)"),
        ("athena", "select * from table(system.query(query => 'select 1'))"),
        ("postgres", r"""select U&"pg\005fread_file"('/etc/passwd')"""),
        ("postgres", r"""select * from u&"pg\005fauthid" """),
        ("postgres", "select max(rolpassword) from pg_authid"),
        ("postgres", "select max(rolpassword) from pg_catalog.PG_AUTHID a"),
        ("postgres", 'select 1 where exists (select * from "pg_shadow")'),
        ("snowflake", "select $1 from @stage/customers.csv"),
        ("snowflake", "select $1 from @~"),
        ("snowflake", "select * from 's3://bucket/x'"),
        ("spark", "select * from parquet.`s3://bucket/x`"),
        ("", 'select * from "https://example.com/x.csv"'),
    ],
)
def test_functions_with_effects_or_other_sources_are_refused(dialect: str, sql: str) -> None:
    refused = problems(sql, dialect, tables=None, parameters=PARAMETERS)
    assert {problem.rule for problem in refused} & {"sql/not-allowed", "sql/syntax"}, refused


def test_beside_our_own_tables_too_catalogs_and_files_are_none() -> None:
    for name in ("pg_authid", '"s3://bucket/x"', '"@stage"'):
        refused = problems(f"select * from {name}", "athena", tables=COLUMNS, parameters=(), elsewhere=True)
        assert "sql/not-allowed" in {problem.rule for problem in refused}, name


@pytest.mark.parametrize("sql", ["select mu&'x' from t", "select u & 'x' from t", "select max(pg) from paging_pg_"])
def test_what_only_looks_like_an_escape_or_a_catalog_is_none(sql: str) -> None:
    assert problems(sql, "postgres", tables=None, parameters=()) == []


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        ("select max(value) from bild_metrics", "there is no table 'bild_metrics'", "write build_metrics"),
        ("select max(value) from main.builds", "there is no table 'main.builds'", "write builds"),
        ("select max(vlaue) from build_metrics", "there is no column 'vlaue'", "write value"),
        ("select b.modle from builds b", "builds has no column 'modle'", "write model"),
        ("select :modle", "there is no parameter :modle", "write :model"),
        ("select :x", "there is no parameter :x", "these are bound: :model, :environment, :build_id, :as_of"),
        ("select $model", "$model is no parameter", "write :model"),
        ("select 1, 2", "the query answers 2 columns, where one is wanted", "select one value"),
        ("select case when 1 from builds", "the query cannot be parsed: ", ""),
    ],
)
def test_a_mistake_is_told_with_what_to_write(sql: str, message: str, hint: str) -> None:
    first = found(sql)[0]
    assert first.message.startswith(message)
    assert first.hint == hint


def test_every_mistake_is_told_at_once() -> None:
    sql = "select a.x, b.valu from bilds a, build_metrics b where b.model = :modl and nextval('s') = 1"
    assert rules(sql) == {
        "sql/one-column",
        "sql/unknown-table",
        "sql/unknown-column",
        "sql/unknown-parameter",
        "sql/not-allowed",
    }


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "(" * 8000 + "1" + ")" * 8000,
        "select " + "(" * 16_000,
        "select 1" + " + 1" * 4000,
        "select " + "not " * 4000 + "true",
        "select " + "f(" * 4000 + "1" + ")" * 4000,
        "select " + "(select " * 1800 + "1" + ")" * 1800,
        "select 1" + " union all select 1" * 850,
        "select " + "case when " * 1600,
        "select " + "[" * 16_000,
        "select " + ", ".join(["x" + "[1]" * 120] * 44),
        "select " + ", ".join(["x" + "[1]" * 100] * 53),
        "select " + "x" + "[1]" * 100,
        "select " + "x[" * 100 + "1" + "]" * 100,
        "select a" + ".a" * 8000,
        "select 1 from " + "(" * 16_000,
        "select 1 from builds" + " join builds" * 1300,
        "select 1 " + "/*" * 8000,
    ],
    ids=lambda sql: sql[:20],
)
def test_16_kilobytes_of_anything_are_judged_in_a_second(sql: str) -> None:
    began = time.process_time()
    if not found(sql):
        prepared(sql, "duckdb", exclude_candidate=True, style="dollar")
    assert time.process_time() - began < 3  # a second where nobody else computes


def test_16_kilobytes_of_subscripts_are_refused_before_they_are_parsed() -> None:
    sql = "select " + ", ".join(["x" + "[1]" * 120] * 44)
    began = time.process_time()
    assert rules(sql) == {"sql/too-deep"}
    assert time.process_time() - began < 2
    with pytest.raises(ValueError, match="nested too deeply"):
        prepared(sql, "duckdb", exclude_candidate=False, style="dollar")


def test_a_hundred_subscripts_are_possible_and_brackets_in_text_are_none() -> None:
    assert rules("select " + " + ".join(["max(metrics['f1'])"] * 100) + f", '{'[' * 200}' from builds") == {
        "sql/one-column"
    }


def test_what_no_spec_may_hold_is_not_parsed() -> None:
    assert rules("select " + "1 + " * LIMIT + "1") == {"sql/too-long"}


WORDS = """
    select from where ( ) , . * : :: :model builds value 'x' 1 and or not case when then end group by order limit join
    with as recursive cast ( interval date [ ] { } -> => := = < over distinct x'zz' $ $$ ? @ ; -- /* */ /*! "b" unnest
    values lateral pivot for into exists like array map e'\\' 0x 1e % # \\ ! tablesample describe set
"""


@settings(max_examples=examples(300))
@given(
    st.lists(st.sampled_from(WORDS.split()), max_size=15),
    st.sampled_from(["duckdb", "athena", "postgres", "mysql", "bigquery", "snowflake"]),
)
def test_whatever_somebody_writes_is_judged_and_what_has_no_problem_can_be_run(words: list[str], dialect: str) -> None:
    sql = f"select {' '.join(words)}"
    if not found(sql, dialect):
        assert prepared(sql, dialect, exclude_candidate=True, style="dollar").sql


def test_sqlglot_says_nothing_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        found("with x as (call f()) select * from x")
        found("select 1 union describe builds")
    assert not caplog.records


# --------------------------------------------------------------------------------------------------- how it is written


GATE = {"exclude_candidate": True}


def written(sql: str, **how: object) -> Prepared:
    arguments = {"exclude_candidate": False, "style": "dollar"} | how
    return prepared(sql, "duckdb", **arguments)  # type: ignore[arg-type] - the tests give what the types say


def test_comments_are_gone_and_so_is_what_follows() -> None:
    assert written("select /* not this */ 1; -- nor this").sql == "SELECT 1"


def test_only_parameters_that_it_names_are_to_be_bound() -> None:
    sql, names, _, _ = written("select max(value) from build_metrics where model = :model")
    assert sql == "SELECT MAX(value) FROM build_metrics WHERE model = $model"
    assert names == ("model",)


def test_question_marks_have_the_names_in_their_order() -> None:
    sql = "select :model from builds where :build_id = :model"
    assert written(sql, style="question").parameters == ("model", "build_id", "model")


@pytest.mark.parametrize("sql", ["select ':model'", 'select ":model" from t', "select a[1:model] from t"])
def test_a_colon_elsewhere_is_no_parameter(sql: str) -> None:
    assert written(sql).parameters == ()


def test_other_colons_are_none_for_sqlalchemy_either() -> None:
    from sqlalchemy import text

    made = prepared("select 'x :model', :model, ' :a'", "postgres", exclude_candidate=False, style="colon")
    clause = text(made.sql)
    assert set(clause._bindparams) == {"model"}  # there is no other way to see them
    assert str(clause.compile(compile_kwargs={"literal_binds": True}).string).count("x :model") == 1


def test_a_gate_sees_only_what_was_there_and_not_the_candidate() -> None:
    sql = "select max(b.value) from build_metrics b, promotions where b.model = :model"
    assert written(sql, exclude_candidate=True).sql == (
        "SELECT MAX(b.value) FROM "
        "(SELECT * FROM build_metrics WHERE build_id <> $build_id AND finished_at <= $as_of) AS b, "
        "(SELECT * FROM promotions WHERE finished_at <= $as_of) AS promotions WHERE b.model = $model"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 from builds",
        "select 1 from (select * from builds)",
        "with a as (select * from builds) select 1 from a",
        "select 1 where exists (select 1 from BUILDS x)",
        "select 1 from promotions join builds using (build_id)",
        "select 1 union all select 1 from builds",
        "select 1 from promotions left join (builds cross join deployments) on true",
        "select 1 from builds tablesample 10%",
        'select 1 from "builds"',
    ],
)
def test_the_candidate_is_excluded_wherever_the_table_is_named(sql: str) -> None:
    made = written(sql, exclude_candidate=True)
    assert (
        made.sql.lower().replace('"', "").count("from builds where build_id <> $build_id and finished_at <= $as_of)")
        == 1
    )
    assert "builds" in made.tables


def test_for_a_gate_a_deployment_is_not_replaced_by_a_later_one() -> None:
    made = written("select count(*) from deployments where replaced_at is null", exclude_candidate=True)
    assert made.sql == (
        "SELECT COUNT(*) FROM (SELECT environment, model, variation, build_id, finished_at AS deployed_at, "
        "LEAD(finished_at) OVER (PARTITION BY environment, model, variation ORDER BY finished_at) AS replaced_at, "
        "name AS promotion FROM promotions WHERE phase = 'Succeeded' AND finished_at <= $as_of) AS deployments "
        "WHERE replaced_at IS NULL"
    )
    assert made.tables == {"deployments"}
    assert "FROM trueup.promotions" in written("select 1 from trueup.deployments", qualify="trueup", **GATE).sql


@pytest.mark.parametrize("table", TABLES)
def test_what_a_gate_excludes_has_its_parameters_where_athena_takes_them(table: str) -> None:
    sql = f"select count(*) from trueup.{table} t where t.model = :model"
    # With colons, as question marks have no names to be found by.
    made = prepared(sql, "athena", exclude_candidate=True, qualify="trueup", style="colon")
    assert set(made.parameters) > {"model"}
    assert misplaced(made.sql, "athena") == []


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select max(value) from build_metrics where model = :model and finished_at > :as_of - interval '7' day", ""),
        ("select max(b.value) from build_metrics b join deployments d on d.model = :model", ""),
        ("select (select max(value) from build_metrics where model = :model)", ""),
        ("with b as (select * from builds where model = :model) select count(*) from b", ""),
        ("select 1 from builds where model in (select model from promotions where environment = :environment)", ""),
        ("select count(*) from builds where exists (select 1 from :model)", ""),  # no SQL: `problems` tells
        ("select", ""),
        ("select :as_of", "as_of"),
        ("select date_diff('day', max(finished_at), :as_of) from builds where model = :model", "as_of"),
        ("select count(*) filter (where model = :model) from builds", "model"),
        ("select count(*) from builds group by model having max(model) = :model", "model"),
        ("select count(*) from builds where 1 < (select count(*) + length(:model) from promotions)", "model"),
        ("select model from builds order by model = :model, environment = :environment limit 1", "model environment"),
        ("select :model from builds union all select :model from builds", "model"),
    ],
)
def test_parameters_that_athena_would_not_take_are_found(sql: str, names: str) -> None:
    found = misplaced(sql, "athena")
    assert [problem.hint for problem in found] == [f"compare with :{name} in WHERE" for name in names.split()]
    assert {problem.rule for problem in found} <= {"sql/parameter-place"}


def test_a_name_with_its_schema_is_the_same_table_and_another_schema_is_somebody_elses() -> None:
    made = written("select 1 from trueup.builds, other.builds o", exclude_candidate=True, qualify="trueup")
    assert "(SELECT * FROM trueup.builds WHERE build_id <> $build_id" in made.sql
    assert "other.builds AS o" in made.sql


@pytest.mark.parametrize(
    ("where", "narrowed"),
    [
        ("model = :model", {("model", "model", True)}),
        ("'production' = i.environment and (status = 200)", {("environment", "production", False)}),
        ("model = 'a' and date = '2026-01-01'", {("model", "a", False), ("date", "2026-01-01", False)}),
        ("model = 'a' or status = 200", set()),
        ("model <> 'a' and model like 'b'", set()),
        ("not (model = 'a')", set()),
        ("request_id = 'a'", set()),
    ],
)
def test_partitions_that_a_query_names_narrow_what_must_be_read(where: str, narrowed: set[Narrowing]) -> None:
    made = written(f"select count(*) from inferences i where {where}", exclude_candidate=True)
    assert set(made.narrowed) == narrowed


def test_partitions_narrow_only_where_every_mention_agrees() -> None:
    one = "select count(*) from inferences where model = 'a' and variation = 'x'"
    other = "select count(*) from inferences where model = 'a' and variation = 'y'"
    assert written(f"{one} union all {other}").narrowed == (Narrowing("model", "a", False),)
    assert written(f"{one} union all select count(*) from inferences").narrowed == ()
    assert written("select 1 from inferences, builds where model = 'a'").narrowed == ()  # whose model?


def test_a_question_with_a_problem_is_refused_and_how_many_columns_is_left_to_the_gate() -> None:
    parameters = dict.fromkeys(PARAMETERS, "x")
    assert ready(Query("select 1, 2", parameters), "duckdb", style="dollar").sql == "SELECT 1, 2"
    with pytest.raises(QueryError, match="there is no table 'bilds'; write builds") as unknown:
        ready(Query("select 1 from bilds", parameters), "duckdb", style="dollar")
    assert (unknown.value.reason, unknown.value.retryable) == ("Syntax", False)
    with pytest.raises(QueryError, match="read_text is not possible") as refused:
        ready(Query("from read_text('x')", parameters), "duckdb", style="dollar")
    assert refused.value.reason == "NotAllowed"


def test_without_a_candidate_nothing_is_excluded() -> None:
    query = Query("select max(value) from build_metrics where model = :model", {"model": "churn"})
    assert "build_id" not in ready(query, "duckdb", style="dollar").sql


# ---------------------------------------------------------------------------------------------------------- the tables

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROMOTION = Promotion(
    identity=Identity(name="churn.default.production.3f9a1c2e-1"),
    spec=PromotionRequest(
        model="churn",
        variation="default",
        environment="production",
        build="3f9a1c2e" * 8,
        automation="retrain",
        cause=Cause(kind="Schedule", at=MOMENT),
    ),
    status=PromotionStatus(
        phase=Phase.SUCCEEDED,
        message="it has all traffic",
        finished_at=MOMENT,
        approval=Approval(by="ada", at=MOMENT),
        gate=Gate(
            verdicts=(
                Verdict(outcome=Outcome.ERROR, reason="Timeout", message="-", at=MOMENT),
                Verdict(
                    outcome=Outcome.PASSED,
                    reason="Passed",
                    message="-",
                    at=MOMENT,
                    metric="f1",
                    value="0.9",
                    threshold="0.65",
                ),
            )
        ),
    ),
)


def test_the_row_of_a_promotion_has_the_columns_of_its_table() -> None:
    row = promotion_row(PROMOTION)
    assert tuple(row) == COLUMNS["promotions"]
    assert row["previous_build_id"] is None
    assert (row["gate_outcome"], row["gate_reason"]) == ("Passed", "Passed")  # the last verdict
    assert (row["value"], row["threshold"], row["approved_by"]) == (0.9, 0.65, "ada")
    assert row["started_at"] == row["finished_at"] == "2026-03-01T12:00:00.000Z"
    assert promotion_key(PROMOTION) == (
        f"{PROMOTIONS.prefix}environment=production/model=churn/churn.default.production.3f9a1c2e-1.json"
    )


@pytest.mark.parametrize("value", ["", "NaN", "Infinity", "1e999", "many"])
def test_what_is_no_number_for_every_engine_is_null_in_the_row(value: str) -> None:
    verdict = Verdict(outcome=Outcome.REJECTED, reason="NotFinite", message="-", at=MOMENT, value=value)
    status = PROMOTION.status.model_copy(update={"gate": Gate(verdicts=(verdict,))})
    row = promotion_row(PROMOTION.model_copy(update={"status": status}))
    assert row["value"] is None
    assert json.loads(to_line(row)) == row


def test_a_promotion_without_a_gate_has_a_row_too() -> None:
    row = promotion_row(PROMOTION.model_copy(update={"status": PromotionStatus(phase=Phase.SUPERSEDED)}))
    assert (row["gate_outcome"], row["metric"], row["finished_at"]) == (None, None, None)


def test_views_are_read_from_what_is_stored() -> None:
    assert [table.name for table in stored(frozenset(["build_metrics", "deployments"]))] == ["builds", "promotions"]
    assert [table.name for table in stored(frozenset(TABLES))] == ["builds", "promotions", "inferences"]
    assert stored(frozenset(["a_cte"])) == ()
