"""What Athena has to know of the model analytics: a database of the Glue catalog, its tables and views, a workgroup.
Pure.

Everything is written as Glue's and Athena's API has it, and not as DDL: so what is there can be compared with what is
wanted, and a second run changes nothing.

`builds` and `promotions` have no partitions: they are small, and any query may read all of them. `inferences` is large,
and has partition projection: no partition is ever registered, no crawler runs. Its environment, model and variation are
*injected*: a query must say which it means (`=` or `IN`), and Athena refuses one that does not. The other possible
projection, a list of values, would leave out a model that is newer than the list, and nobody would see it. Its date and
hour are projected: a query without a date reads every hour since 2026.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from reconciler.warehouse.tables import BUILD_METRICS, BUILD_METRICS_SQL, DEPLOYMENTS_SQL, TABLES, Column, Table, Type

#: A parameter of what was made here, with the object storage that it reads.
MARK = "trueup.dev/object-storage"
#: How the description of a workgroup begins that was made here.
MADE_BY = "Made by `reconcile analytics init`"

#: Type, as Hive's names it (tables), and as Trino's does (views).
_TYPES: dict[Type, tuple[str, str]] = {
    Type.TEXT: ("string", "varchar"),
    Type.WHOLE: ("bigint", "bigint"),
    Type.NUMBER: ("double", "double"),
    Type.TRUTH: ("boolean", "boolean"),
    Type.INSTANT: ("timestamp", "timestamp(3)"),
    Type.TEXTS: ("map<string,string>", "map(varchar, varchar)"),
    Type.NUMBERS: ("map<string,double>", "map(varchar, double)"),
    Type.JSON: ("string", "varchar"),
}
_PROJECTION = {
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
}


def table_inputs(storage: str, database: str) -> Iterator[dict[str, Any]]:
    """The `TableInput` of each table and view, in the order in which they can be made. `storage`: s3://bucket/prefix."""
    for table in sorted(TABLES.values(), key=lambda table: bool(table.of)):
        yield _view(table, storage, database) if table.of else _table(table, storage)


def database_input(storage: str, database: str) -> dict[str, Any]:
    """The `DatabaseInput`."""
    return {"Name": database, "Description": "The model analytics of Trueup.", "Parameters": {MARK: storage}}


def workgroup_configuration(output_location: str, cutoff_bytes: int) -> dict[str, Any]:
    """A workgroup's `Configuration`: enforced, so that no client sets another output, or goes without the limit."""
    return {
        "EnforceWorkGroupConfiguration": True,
        "PublishCloudWatchMetricsEnabled": True,
        "BytesScannedCutoffPerQuery": cutoff_bytes,
        "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
        "ResultConfiguration": {"OutputLocation": output_location},
    }


def _table(table: Table, storage: str) -> dict[str, Any]:
    location = f"{storage.rstrip('/')}/{table.prefix}"
    partitions = [column for column in table.columns if column.partition]
    parameters = {"EXTERNAL": "TRUE", "classification": "json", MARK: storage}
    if partitions:
        folders = "".join(f"{column.name}=${{{column.name}}}/" for column in partitions)
        parameters |= {**_PROJECTION, "storage.location.template": f"{location}{folders}"}
    return {
        "Name": table.name,
        "Description": table.description,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        "PartitionKeys": [_column(column) for column in partitions],
        "StorageDescriptor": {
            "Columns": [_column(column) for column in table.columns if not column.partition],
            "Location": location,
            "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe",
                "Parameters": {
                    # Otherwise it writes the keys of maps in lower case: names of metrics are keys.
                    "case.insensitive": "false",
                    **{f"mapping.{column.name}": column.key for column in table.columns if column.key},
                },
            },
        },
    }


def _view(table: Table, storage: str, database: str) -> dict[str, Any]:
    """A view as Athena itself stores one: its definition as JSON in base64, in a comment."""
    definition = {
        "originalSql": BUILD_METRICS_SQL["athena"] if table is BUILD_METRICS else DEPLOYMENTS_SQL,
        "catalog": "awsdatacatalog",
        "schema": database,
        "columns": [{"name": column.name, "type": _TYPES[column.type][1]} for column in table.columns],
    }
    encoded = base64.b64encode(json.dumps(definition).encode()).decode()
    return {
        "Name": table.name,
        "Description": table.description,
        "TableType": "VIRTUAL_VIEW",
        "Parameters": {"presto_view": "true", "comment": "Presto View", MARK: storage},
        "PartitionKeys": [],
        "StorageDescriptor": {"Columns": [_column(column) for column in table.columns], "Location": ""},
        "ViewOriginalText": f"/* Presto View: {encoded} */",
        "ViewExpandedText": "/* Presto View */",
    }


def _column(column: Column) -> dict[str, str]:
    return {"Name": column.name, "Type": _TYPES[column.type][0], "Comment": column.description}
