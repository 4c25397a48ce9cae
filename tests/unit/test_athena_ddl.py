"""What is made of the model analytics' tables for Athena, and what Athena's words mean. Pure."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from reconciler.warehouse.athena import failure, literal
from reconciler.warehouse.athena_catalog import (
    MARK,
    database_input,
    table_inputs,
    workgroup_configuration,
)
from reconciler.warehouse.tables import TABLES

STORAGE = "s3://acme-models/production"


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return {table["Name"]: table for table in table_inputs(STORAGE, "trueup")}


def columns(table: dict[str, Any], of: str = "StorageDescriptor") -> list[tuple[str, str]]:
    found = table[of]["Columns"] if of == "StorageDescriptor" else table[of]
    return [(column["Name"], column["Type"]) for column in found]


def test_every_table_is_made_and_views_come_after_what_they_are_views_of(made: dict[str, Any]):
    assert list(made) == ["builds", "promotions", "inferences", "build_metrics", "deployments"]
    for name, table in made.items():
        known = [name for name, _ in columns(table) + columns(table, "PartitionKeys")]
        assert known == [column.name for column in TABLES[name].columns]
        assert table["Parameters"][MARK] == STORAGE


def test_the_table_of_builds(made: dict[str, Any]):
    assert columns(made["builds"]) == [
        ("build_id", "string"),
        ("model", "string"),
        ("environment", "string"),
        ("commit_id", "string"),
        ("python", "string"),
        ("artifact", "string"),
        ("parameters", "map<string,string>"),
        ("metrics", "map<string,double>"),
        ("tests_passed", "bigint"),
        ("tests_failed", "bigint"),
        ("tests_skipped", "bigint"),
        ("started_at", "timestamp"),
        ("finished_at", "timestamp"),
        ("duration_s", "double"),
    ]
    assert made["builds"]["PartitionKeys"] == []
    assert made["builds"]["TableType"] == "EXTERNAL_TABLE"
    storage = made["builds"]["StorageDescriptor"]
    assert storage["Location"] == "s3://acme-models/production/analytics/builds/"
    assert storage["SerdeInfo"] == {
        "SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe",
        "Parameters": {"case.insensitive": "false"},
    }
    assert "projection.enabled" not in made["builds"]["Parameters"]


def test_the_table_of_inferences_finds_its_partitions_by_itself(made: dict[str, Any]):
    table = made["inferences"]
    keys = [name for name, _ in columns(table, "PartitionKeys")]
    assert keys == ["environment", "model", "variation", "date", "hour"]
    assert table["Parameters"] == {
        "EXTERNAL": "TRUE",
        "classification": "json",
        MARK: STORAGE,
        "projection.enabled": "true",
        "projection.environment.type": "injected",
        "projection.model.type": "injected",
        "projection.variation.type": "injected",
        "projection.date.type": "date",
        "projection.date.format": "yyyy-MM-dd",
        "projection.date.range": "2026-01-01,NOW",
        "projection.date.interval": "1",
        "projection.date.interval.unit": "DAYS",
        "projection.hour.type": "integer",
        "projection.hour.range": "0,23",
        "projection.hour.digits": "2",
        "storage.location.template": (
            "s3://acme-models/production/inferences/environment=${environment}/model=${model}/variation=${variation}"
            "/date=${date}/hour=${hour}/"
        ),
    }
    assert {key for key in table["Parameters"] if key.endswith(".type")} == {f"projection.{key}.type" for key in keys}
    assert table["StorageDescriptor"]["SerdeInfo"]["Parameters"]["mapping.requested_at"] == "time"


@pytest.mark.parametrize("name", ["build_metrics", "deployments"])
def test_a_view_is_as_athena_stores_one(made: dict[str, Any], name: str):
    view = made[name]
    assert view["TableType"] == "VIRTUAL_VIEW"
    assert view["ViewExpandedText"] == "/* Presto View */"
    encoded = re.fullmatch(r"/\* Presto View: ([A-Za-z0-9+/=]+) \*/", view["ViewOriginalText"])
    assert encoded
    definition = json.loads(base64.b64decode(encoded[1]))
    assert (definition["catalog"], definition["schema"]) == ("awsdatacatalog", "trueup")
    selected = sqlglot.parse_one(definition["originalSql"], dialect="athena").named_selects
    assert selected == [column["name"] for column in definition["columns"]] == [name for name, _ in columns(view)]
    trino = {column["name"]: column["type"] for column in definition["columns"]}
    assert {trino[name] for name, kind in columns(view) if kind == "timestamp"} == {"timestamp(3)"}
    assert {trino[name] for name, kind in columns(view) if kind == "string"} == {"varchar"}


def test_locations_end_with_a_slash_whatever_the_environment_wrote():
    for table in table_inputs(STORAGE + "/", "trueup"):
        location = table["StorageDescriptor"]["Location"]
        assert not location or (location.endswith("/") and "//" not in location.removeprefix("s3://"))


def test_the_database_and_the_workgroup():
    assert database_input(STORAGE, "trueup") == {
        "Name": "trueup",
        "Description": "The model analytics of Trueup.",
        "Parameters": {MARK: STORAGE},
    }
    assert workgroup_configuration("s3://acme-models/results/", 10_000_000_000) == {
        "EnforceWorkGroupConfiguration": True,
        "PublishCloudWatchMetricsEnabled": True,
        "BytesScannedCutoffPerQuery": 10_000_000_000,
        "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
        "ResultConfiguration": {"OutputLocation": "s3://acme-models/results/"},
    }


# -- parameters -----------------------------------------------------------------------------------------------------


def test_text_is_a_parameter_in_quotes():
    assert literal("churn") == "'churn'"
    assert literal("o'hare'; drop table builds; --") == "'o''hare''; drop table builds; --'"


def test_an_instant_is_a_timestamp_in_utc():
    moment = datetime(2026, 3, 29, 3, 30, 1, 987_654, tzinfo=timezone(timedelta(hours=2)))
    assert literal(moment) == "CAST('2026-03-29 01:30:01.987' AS TIMESTAMP)"
    assert literal(moment.astimezone(UTC)) == literal(moment)


@given(st.text())
def test_no_text_gets_out_of_its_quotes(text: str):
    written = literal(text)
    assert written[0] == written[-1] == "'"
    assert "'" not in written[1:-1].replace("''", "")
    assert written[1:-1].replace("''", "'") == text


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error", "reason", "retryable"),
    [
        ("line 1:8: mismatched input 'form'", {"ErrorCategory": 2}, "Syntax", False),
        ("SYNTAX_ERROR: line 1:8: Column 'acu' cannot be resolved", {"ErrorCategory": 2}, "Syntax", False),
        ("TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.trueup.bilds' does not exist", {}, "Syntax", False),
        ("Query cancelled! : Bytes scanned limit was exceeded", {}, "TooLarge", False),
        ("Query exhausted resources at this scale factor", {"Retryable": False}, "TooLarge", False),
        ("Query timeout", {}, "Timeout", True),
        ("Access Denied (Service: Amazon S3; Status Code: 403)", {"ErrorCategory": 2}, "Permission", False),
        ("Insufficient Lake Formation permission(s) on builds", {}, "Permission", False),
        ("Please reduce your request rate. (Error Code: SlowDown)", {}, "Unavailable", True),
        ("GENERIC_INTERNAL_ERROR: something", {"ErrorCategory": 1, "ErrorType": 0}, "Unavailable", True),
        ("DIVISION_BY_ZERO", {"ErrorCategory": 2, "Retryable": False}, "Failed", False),
        ("something else", {"Retryable": True}, "Unavailable", True),
    ],
)
def test_why_an_execution_failed(said: str, error: dict[str, Any], reason: str, retryable: bool):
    found = failure({"State": "FAILED", "StateChangeReason": said, "AthenaError": error})
    assert (found.reason, found.retryable, found.message) == (reason, retryable, said)


def test_an_injected_partition_that_the_query_does_not_name_is_explained():
    said = (
        "CONSTRAINT_VIOLATION: For the injected projected partition column variation, the WHERE clause must contain "
        "only static equality conditions, and at least one such condition must be present."
    )
    found = failure({"State": "FAILED", "StateChangeReason": said})
    assert found.reason == "Syntax"
    assert found.message.endswith("write `where environment = :environment and model = :model and variation = '...'`")


def test_a_cancelled_execution_may_be_tried_again_and_one_without_a_reason_says_so():
    cancelled = failure({"State": "CANCELLED"})
    assert (cancelled.reason, cancelled.retryable) == ("Failed", True)
    silent = failure({"State": "FAILED"})
    assert (silent.reason, silent.retryable) == ("Failed", False)
    assert "does not say why" in silent.message
