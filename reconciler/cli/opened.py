"""The clusters that a command is about, with what was recorded there; and the end where they are in the way."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.cli.common import clusters_of, fail, mirrors_of, warn, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.clusters import Clusters
    from reconciler.outside import Outside
    from reconciler.records import PromotionRequest
    from renderers.catalog import Catalog
    from schemas.environment import DataPlane


class Opened:
    """The records of the reconciler's own cluster, read once."""

    def __init__(self, clusters: Clusters, plane: DataPlane) -> None:
        from reconciler import ledger

        self.clusters = clusters
        self.plane = plane
        self.writer = clusters.writer(plane)
        self.ledger, troubles = ledger.read(self.writer)
        warn(troubles)

    def outside(self, mirrors: list[str] | None = None) -> Outside:
        """The world beside the clusters."""
        from reconciler.outside import Outside

        return Outside(self.clusters.reader, self.clusters.home, mirrors_of(mirrors))

    def create(self, request: PromotionRequest) -> None:
        """Asks for a promotion. The next `reconcile` carries it out."""
        from reconciler import ledger
        from reconciler.records import Identity, Promotion, promotion_name

        made = Promotion(identity=Identity(name=promotion_name(request)), spec=request)
        created = ledger.create(self.writer, made)
        write(f"{made.identity.name} {'is asked for' if created else 'was asked for already'}\n")


@contextmanager
def records_opened(
    home: Path | None, kubeconfig: str | None, context: str | None, catalog: Catalog | None = None, otherwise: str = ""
) -> Iterator[Opened]:
    """The records of the cluster that the specs name; without specs, those of the embedded data plane if it runs
    here, and otherwise those of the kubeconfig's cluster.
    """
    with clusters_opened(home, kubeconfig, context, otherwise) as clusters:
        yield Opened(clusters, home_plane(clusters, catalog))


@contextmanager
def clusters_opened(
    home: Path | None, kubeconfig: str | None, context: str | None, otherwise: str = ""
) -> Iterator[Clusters]:
    """The clusters. What is in the way ends the command with a sentence.

    `otherwise`: what is wrong with what was asked for, unless it is in a cluster; "" where it can be nowhere else.
    """
    from reconciler.cluster import ApiError, KubeconfigError
    from reconciler.decisions import NotMeantError
    from reconciler.outside import OutsideError
    from reconciler.records import RecordError

    with closing(clusters_of(home, kubeconfig, context)) as clusters:
        try:
            yield clusters
        except (NotMeantError, RecordError) as error:
            fail(f"{error}{otherwise and f'; {otherwise}'}", code=1)
        except KubeconfigError as error:
            hint = "" if kubeconfig else "; or start a data plane on this machine: reconcile up"
            if otherwise and not kubeconfig:
                # Nobody has named a cluster, so it was hardly about one.
                fail(f"{otherwise}. Promotions are in a cluster, and there is none: {error}", code=1)
            fail(f"{error}{hint}", code=3)
        except (ApiError, OutsideError) as error:
            fail(f"{error}{otherwise and f'; {otherwise}'}", code=3)


def home_plane(clusters: Clusters, catalog: Catalog | None) -> DataPlane:
    """Where the records are."""
    from reconciler import local
    from schemas.environment import DataPlane

    if catalog is not None:
        return clusters.home_plane(placed.spec.data_plane for placed in catalog.environments.values())
    return DataPlane(type="embedded" if local.pid(clusters.home.absolute()) else "kubernetes")
