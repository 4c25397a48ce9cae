"""`reconcile analytics init`: makes what Athena needs to answer for an environment, and says what it did.

Running it again changes nothing, and after an update of Trueup just what is different. What it did not make it leaves
alone, unless told to adopt it; the workgroup `primary`, which is everybody's, in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from reconciler.warehouse import QueryError
from reconciler.warehouse.athena import client, explained
from reconciler.warehouse.athena_catalog import (
    MADE_BY,
    MARK,
    database_input,
    table_inputs,
    workgroup_configuration,
)
from schemas.environment import Environment

#: Bytes that one query may scan: ten gigabytes cost five cents.
CUTOFF_BYTES = 10 * 1000**3
#: Athena's own bound of that setting, and what it counts at least for a query.
LEAST_CUTOFF_BYTES = 10 * 1000**2
_TIMEOUT_S = 30.0


class AnalyticsError(Exception):
    """It cannot be made. The sentence says what is in the way, and what to do."""


class Step(NamedTuple):
    """What was done (or, in a dry run, would be) with one thing. `detail`: what differed, or why it was left."""

    action: Literal["made", "changed", "kept", "left"]
    what: str  #: such as `table trueup.builds`
    detail: str = ""


class _Todo(NamedTuple):
    step: Step
    do: Callable[[], object] | None = None


def init(
    environment: Environment, *, cutoff_bytes: int = CUTOFF_BYTES, adopt: bool = False, dry_run: bool = False
) -> list[Step]:
    """Makes the database, its tables and views, and the workgroup of an environment's analytics; all that is there
    is looked at before anything is written. Raises AnalyticsError.

    `adopt`: take over what somebody else made. `dry_run`: write nothing.
    """
    analytics = environment.analytics
    if analytics.engine != "athena" or analytics.database is None:
        raise AnalyticsError(
            f"environment {environment.name} has the engine {analytics.engine}, which needs nothing made; "
            "write analytics: {engine: athena, database: NAME, workgroup: NAME} to use Athena"
        )
    storage = (environment.object_storage or "").rstrip("/")
    if not storage.startswith("s3://"):
        raise AnalyticsError(f"Athena reads S3 alone: give environment {environment.name} an object_storage of s3://")
    if cutoff_bytes < LEAST_CUTOFF_BYTES:
        raise AnalyticsError(f"a query scans at least {LEAST_CUTOFF_BYTES} bytes, so {cutoff_bytes} forbids them all")
    output = analytics.output_location or f"{storage}/athena-results/"
    try:
        with (
            explained("AWS"),
            client("glue", analytics.region, _TIMEOUT_S) as glue,
            client("athena", analytics.region, _TIMEOUT_S) as athena,
        ):
            todo = [
                *_catalog(glue, analytics.database, storage, adopt),
                _workgroup(athena, analytics.workgroup, workgroup_configuration(output, cutoff_bytes), adopt),
            ]
            for each in todo:
                if each.do is not None and not dry_run:
                    each.do()
    except QueryError as error:
        raise AnalyticsError(error.message) from None
    return [each.step for each in todo]


def _catalog(glue: Any, database: str, storage: str, adopt: bool) -> Iterator[_Todo]:
    wanted = database_input(storage, database)
    what = f"database {database}"
    found = _found(lambda: glue.get_database(Name=database)["Database"])
    if found is None:
        yield _Todo(Step("made", what), lambda: glue.create_database(DatabaseInput=wanted))
    else:
        # Others may have tables of their own in it: their database is used, and not changed.
        yield _Todo(Step("kept", what))
    for table in table_inputs(storage, database):
        kind = "view" if table["TableType"] == "VIRTUAL_VIEW" else "table"
        yield _table(glue, f"{kind} {database}.{table['Name']}", database, table, adopt)


def _table(glue: Any, what: str, database: str, wanted: dict[str, Any], adopt: bool) -> _Todo:
    storage = wanted["Parameters"][MARK]
    found = _found(lambda: glue.get_table(DatabaseName=database, Name=wanted["Name"])["Table"])
    if found is None:
        return _Todo(Step("made", what), lambda: glue.create_table(DatabaseName=database, TableInput=wanted))
    reads = found.get("Parameters", {}).get(MARK)
    if reads != storage and not adopt:
        if reads is None:
            raise AnalyticsError(f"{what} is there, and not of Trueup: name another database, or say --adopt")
        raise AnalyticsError(
            f"{what} reads {reads}, and not {storage}: each object storage needs a database of its own; "
            "--adopt turns this one over"
        )
    different = sorted(_differences(wanted, found))
    if not different:
        return _Todo(Step("kept", what))
    return _Todo(
        Step("changed", what, ", ".join(different)),
        lambda: glue.update_table(DatabaseName=database, TableInput=wanted, SkipArchive=True),
    )


def _workgroup(athena: Any, name: str | None, wanted: dict[str, Any], adopt: bool) -> _Todo:
    what = f"workgroup {name or 'primary'}"
    if name in (None, "primary"):
        why = "it is everybody's, so nothing bounds what a query scans; write analytics: {workgroup: NAME}"
        return _Todo(Step("left", what, why))
    description = f"{MADE_BY}: bounds what gates and triggers scan."
    found = _found(lambda: athena.get_work_group(WorkGroup=name).get("WorkGroup"))
    if found is None:
        return _Todo(
            Step("made", what),
            lambda: athena.create_work_group(Name=name, Configuration=wanted, Description=description),
        )
    if not found.get("Description", "").startswith(MADE_BY) and not adopt:
        raise AnalyticsError(f"{what} is there, and not of Trueup: name another one, or say --adopt")
    current = {"Description": found.get("Description", ""), "Configuration": found.get("Configuration", {})}
    different = sorted(_differences({"Description": description, "Configuration": wanted}, current))
    if not different:
        return _Todo(Step("kept", what))
    updates = {key: value for key, value in wanted.items() if key != "ResultConfiguration"}
    updates["ResultConfigurationUpdates"] = wanted["ResultConfiguration"]
    return _Todo(
        Step("changed", what, ", ".join(different)),
        lambda: athena.update_work_group(WorkGroup=name, Description=description, ConfigurationUpdates=updates),
    )


def _found(get: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """What is there; None for nothing."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - boto3 is for those who use it

    try:
        return get()
    except ClientError as error:
        told = error.response.get("Error", {})
        # Glue has a code for it; Athena has a sentence.
        if told.get("Code") == "EntityNotFoundException" or "not found" in told.get("Message", ""):
            return None
        raise


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Paths of what is wanted and not there. What AWS adds by itself is no difference."""
    for key, value in wanted.items():
        path, current = f"{at}{key}", found.get(key)
        if isinstance(value, dict) and isinstance(current, dict):
            yield from _differences(value, current, f"{path}.")
        elif isinstance(value, list) and isinstance(current, list) and len(value) == len(current):
            if any(list(_differences(one, other)) for one, other in zip(value, current, strict=True)):
                yield path
        elif current != value and (current or value):
            yield path
