"""The SQL of specs, as `reconcile plan` and `validate` judge it."""

from __future__ import annotations

import pytest

from reconciler import queries, specs
from schemas.problem import Problem

SPECS = """\
api_version: v1
spec:
  environments:
    - name: production
      analytics: {analytics}
  automations:
    - name: nightly
      model: churn
      trigger: manual
      build_spec: {{git_uri: "https://example.com/a"}}
      deployment_condition: {{metric_name: f1, threshold: "{threshold}"}}
      deployment_spec: {{}}
"""
ATHENA, DUCKDB, OTHER = "{engine: athena, database: trueup}", "{}", "{engine: sqlalchemy, url_secret: dsn}"
AGE = "select date_diff('day', max(finished_at), :as_of) from builds where model = :model"


def problems(threshold: str, analytics: str) -> list[Problem]:
    text = SPECS.format(threshold=threshold, analytics=analytics).encode()
    found = specs.parse({"a.yaml": text}, queries.check).problems
    return [problem for problem in found if problem.rule.startswith("sql/")]


def test_a_parameter_that_athena_would_not_take_is_shown_in_the_spec() -> None:
    (problem,) = problems(AGE, ATHENA)
    assert (problem.rule, problem.line, problem.hint) == ("sql/parameter-place", 11, "compare with :as_of in WHERE")
    assert problem.message == (
        "automation nightly: its SQL: :as_of stands where Athena takes no parameter, which it does in WHERE and "
        "in JOIN."
    )


@pytest.mark.parametrize("analytics", [DUCKDB, OTHER])
def test_other_engines_take_parameters_anywhere(analytics: str) -> None:
    assert problems(AGE, analytics) == []


@pytest.mark.parametrize("table", ["builds", "deployments", "promotions", "inferences"])
def test_athena_takes_them_in_where(table: str) -> None:
    assert problems(f"select count(*) from {table} where model = :model", ATHENA) == []


def test_a_query_that_cannot_be_read_is_told_once() -> None:
    assert [problem.rule for problem in problems("select :as_of from (", ATHENA)] == ["sql/syntax"]


def test_a_catalog_of_the_warehouse_is_no_table_of_anybodys_analytics() -> None:
    (problem,) = problems("select max(rolpassword) from pg_authid", OTHER)
    assert problem.rule == "sql/not-allowed"
