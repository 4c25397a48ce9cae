"""The engine of an environment, as its `analytics` say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.warehouse import Engine, QueryError
from schemas.environment import Environment


def engine_for(environment: Environment, read_secret: Callable[[str], str], home: Path, cache: Path) -> Engine:
    """Opens nothing yet: that is for the first question, which also raises what `read_secret` raises.

    `read_secret` gives the key `url` of a Secret, by its name. `home`: the folder of the embedded data plane, whose
    objects an environment without an object storage of its own has. `cache`: a folder that only this environment uses.
    Raises QueryError where the object storage cannot be what is asked.
    """
    analytics = environment.analytics
    if analytics.engine == "sqlalchemy":
        from reconciler.warehouse.alchemy import SqlAlchemyEngine  # noqa: PLC0415 - one engine is enough

        name = analytics.url_secret
        assert name is not None, "the language has both or neither"
        return SqlAlchemyEngine(lambda: read_secret(name).strip())
    if analytics.engine == "athena":
        from reconciler.warehouse.athena import AthenaEngine  # noqa: PLC0415

        assert analytics.database is not None, "the language demands it"
        return AthenaEngine(
            analytics.database,
            workgroup=analytics.workgroup or "primary",
            output_location=analytics.output_location,
            region=analytics.region,
        )
    from reconciler.warehouse.duckdb import DuckDb  # noqa: PLC0415

    storage = environment.object_storage or (home.absolute() / "data" / "objects").as_uri()
    try:
        return DuckDb(storage, cache)
    except ValueError as error:
        raise QueryError("Unavailable", str(error)) from None
