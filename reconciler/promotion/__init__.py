"""How a build comes to be served: which promotions are wanted, and what the next step of each is. Pure.

    specs + records -> places -> requests -> new Promotions
    a Promotion + its World + now -> advance -> its next status, and perhaps a question (a gate, checks) -> judged
    records -> stands -> what rendering serves, and at which percent

The records are the only memory. Each step is decided from them anew, and written before the traffic follows. So the
process may die between any two writes, and two of them may run at once: the next one decides the same.
"""

from reconciler.promotion.ledger import Ledger, PlaceKey
from reconciler.promotion.machine import APPROVAL_VALID, advance
from reconciler.promotion.places import Place, places, stands
from reconciler.promotion.requests import requests, target
from reconciler.promotion.rollout import DEPLOYMENT_TIMEOUT
from reconciler.promotion.status import AskChecks, AskGate, Step, judged
from reconciler.promotion.world import World, world

__all__ = [
    "APPROVAL_VALID",
    "DEPLOYMENT_TIMEOUT",
    "AskChecks",
    "AskGate",
    "Ledger",
    "Place",
    "PlaceKey",
    "Step",
    "World",
    "advance",
    "judged",
    "places",
    "requests",
    "stands",
    "target",
    "world",
]
