"""Reports made by hand, with something of everything, for the tests of what is printed."""

from __future__ import annotations

from reconciler import plan
from reconciler.diff import FieldChange
from reconciler.inventory import CONTENT_HASH
from reconciler.plan import Change, Guard, Note, Op
from reconciler.report import Base, Done, Effect, Outcome, Report, Told, Topic, Trouble
from renderers.manifest import Body, Manifest, ObjectId, Origin
from schemas.problem import Problem

CHURN = Origin("specs/churn.yaml", 4, "variation", "churn/default", path=("spec", "variations", 0))
FRAUD = Origin("specs/fraud.yaml", 12, "variation", "fraud/default", path=("spec", "variations", 1))
COMMIT = "3f9a1c2e77aa90c7c6162a4b2e5e840e4d8fa366"

ERROR = Problem(
    "specs/churn.yaml",
    7,
    12,
    ("spec", "variations", 0, "traffic", 0, "weight"),
    "schema/range",
    "The weight 140 is more than 100.",
    "write a number from 0 to 100",
)
WARNING = Problem(
    "specs/churn.yaml",
    20,
    52,
    ("spec", "variations", 0, "deployment", "env_vars", "SCORING_TOKEN"),
    "secret/in-the-open",
    "The variable SCORING_TOKEN looks like a credential, which everybody can read here.",
    "write secret.NAME-OF-A-SECRET as its value",
    "warning",
)
OF_POLICY = Problem(
    "specs/fraud.yaml",
    12,
    7,
    ("spec", "variations", 1),
    "policy/two-pods",
    "production needs at least two pods, and fraud/default has one.",
)
EFFECTS = (
    Effect("production", "churn", Topic.TRAFFIC, "everybody else: default 90 % -> 50 %, careful 10 % -> 50 %", CHURN),
    Effect("production", "fraud", Topic.REMOVED, "nobody answers predictions any more: variation default goes"),
    Effect(
        "staging", "churn", Topic.BUILD, "build churn-2 (3f9a1c2e) is built, from https://git.example/ml#churn", CHURN
    ),
    Effect("staging", "churn", Topic.SCALING, "default: auto_scale_config.max_replica_count 4 -> 8", CHURN),
    Effect("", "churn", Topic.AUTOMATION, "automation nightly is new, and runs at 0 3 * * * (Europe/Berlin)", CHURN),
)


def an_object(kind: str, name: str, api_version: str = "apps/v1", namespace: str = "prod") -> ObjectId:
    return ObjectId(api_version, kind, namespace, name)


def a_manifest(target: ObjectId, environment: str = "production", **spec: object) -> Manifest:
    labels, annotations = {"trueup.dev/model": "churn"}, {CONTENT_HASH: "c0ffee"}
    metadata = {"name": target.name, "namespace": target.namespace, "labels": labels, "annotations": annotations}
    body: Body = {"apiVersion": target.api_version, "kind": target.kind, "metadata": metadata, "spec": spec}
    return Manifest(target, body, CHURN, environment)


DEPLOYMENT, ROUTE = an_object("Deployment", "churn-default-3f9a1c2e"), an_object("HTTPRoute", "churn")
GONE, REFUSED = an_object("Deployment", "fraud-default-90c7c616"), an_object("ScaledObject", "fraud-default")
CONTAINERS = [
    {"name": "model", "image": "registry.example/churn:2", "env": [{"name": "SCORING_TOKEN", "value": "hunter2"}]}
]
CREATED = Change(
    Op.CREATE,
    DEPLOYMENT,
    "production",
    CHURN,
    manifest=a_manifest(DEPLOYMENT, replicas=2, template={"spec": {"containers": CONTAINERS}}),
)
CHANGED = Change(
    Op.CHANGE,
    ROUTE,
    "production",
    CHURN,
    fields=(
        FieldChange("spec.rules[0].backendRefs[churn-careful].weight", 10, 50),
        FieldChange("spec.rules[0].timeouts", None, {"request": "10s"}),
        FieldChange("metadata.labels[team]", "growth", None),
    ),
    traffic=("default: build 840e4d8f 95 % -> 75 %, build a366d739 5 % -> 25 %",),
)
DELETED = Change(Op.DELETE, GONE, "production", held="all 3 objects of production would be deleted")
UNWANTED = Change(Op.REFUSED, REFUSED, "staging", FRAUD, reason='spec.maxReplicaCount: Invalid value: "many"')
UNTOUCHED = Change(Op.UNCHANGED, an_object("Service", "churn", "v1"), "staging", CHURN)
GUARD = Guard("production", "prune/all", "all 3 objects of production would be deleted", approval="5d2a91bc0e7f")
NOTE = Note("production", CHURN, "routing mode of churn in production: native")


def a_plan() -> plan.Plan:
    return plan.assemble([CREATED, CHANGED, DELETED, UNWANTED, UNTOUCHED], [NOTE], [GUARD])


def of_a_pull_request() -> Report:
    """What a review of specs finds: errors, a policy, effects, objects."""
    broken = Problem("specs/old.yaml", 1, 1, (), "yaml/syntax", "The file is no YAML: found a tab.")
    base = Base("origin/main", COMMIT, ("specs/churn.yaml", "specs/fraud.yaml"), (broken,))
    return Report((ERROR, WARNING, OF_POLICY), a_plan(), base=base, effects=EFFECTS)


def of_a_run() -> Report:
    """What a run that met everything comes to."""
    done = (
        Done(CREATED, Outcome.APPLIED),
        Done(CHANGED, Outcome.FAILED, "the server refused it: spec.rules: Too many: 20: must have at most 16 items"),
        Done(DELETED, Outcome.BLOCKED, "left alone: a second look found it asked for"),
    )
    trouble = (Trouble("staging", "https://10.0.0.1:6443 does not answer: connection refused"),)
    told = (Told("production: churn/default", "build 3f9a1c2e has passed its gate: auc 0.91 is above 0.9"),)
    return Report((WARNING,), a_plan(), done, trouble, told=told)


def of_nothing() -> Report:
    """A pull request that changes a comment."""
    return Report(plan=plan.assemble([UNTOUCHED]), base=Base("main", COMMIT, ("specs/churn.yaml",)))
