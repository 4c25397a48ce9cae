"""What `kubectl get` shows of each built-in kind: the columns of the Table answer, with the names people know."""

from __future__ import annotations

from collections.abc import Mapping

from embedded.kinds.cells import (
    access_modes,
    age,
    at,
    completions,
    data_count,
    endpoints,
    event_object,
    event_source,
    event_time,
    external_ip,
    hpa_targets,
    job_duration,
    job_status,
    joined,
    node_roles,
    node_status,
    pdb_bound,
    pod_ready,
    pod_status,
    ports,
    quota,
    readiness_gates,
    ready_of,
    reference,
    restarts,
    role,
    selector_text,
    slice_addresses,
    slice_ports,
    subjects,
    text,
    value,
)
from embedded.kinds.kind import Cell, Column


def _containers(path: str) -> tuple[Column, ...]:
    def names(field: str) -> Cell:
        return lambda obj, _now: joined(container.get(field, "") for container in at(obj, path, ()))

    return (
        Column(
            "Containers", "string", names("name"), description="Names of each container in the template.", priority=1
        ),
        Column(
            "Images",
            "string",
            names("image"),
            description="Images referenced by each container in the template.",
            priority=1,
        ),
    )


def _selector(path: str) -> Column:
    return Column(
        "Selector", "string", lambda obj, _now: selector_text(at(obj, path)), description="Label selector.", priority=1
    )


NAME = Column(
    "Name",
    "string",
    lambda obj, _now: obj["metadata"]["name"],
    format="name",
    description="Name must be unique within a namespace.",
)
AGE = Column(
    "Age",
    "string",
    lambda obj, now: age(at(obj, "metadata.creationTimestamp"), now),
    description="Time since the object was created.",
)
CREATED_AT = Column(
    "Created At",
    "date",
    lambda obj, _now: at(obj, "metadata.creationTimestamp"),
    description="Time the object was created.",
)


_TEMPLATE = "spec.template.spec.containers"
_SET_COLUMNS = (
    NAME,
    Column("Desired", "integer", value("spec.replicas", 0), description="Number of pods that are wanted."),
    Column("Current", "integer", value("status.replicas", 0), description="Number of pods that there are."),
    Column("Ready", "integer", value("status.readyReplicas", 0), description="Number of pods that are ready."),
    AGE,
    *_containers(_TEMPLATE),
    _selector("spec.selector"),
)
_BINDING_COLUMNS = (
    NAME,
    Column("Role", "string", role, description="The role that is given."),
    AGE,
    Column("Users", "string", subjects("User"), description="Users in the binding.", priority=1),
    Column("Groups", "string", subjects("Group"), description="Groups in the binding.", priority=1),
    Column(
        "ServiceAccounts",
        "string",
        subjects("ServiceAccount"),
        description="ServiceAccounts in the binding.",
        priority=1,
    ),
)

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "": (NAME, AGE),
    "ConfigMap": (NAME, Column("Data", "string", data_count, description="Number of keys."), AGE),
    "Secret": (
        NAME,
        Column("Type", "string", value("type", ""), description="What kind of secret it is."),
        Column("Data", "string", data_count, description="Number of keys."),
        AGE,
    ),
    "Namespace": (
        NAME,
        Column("Status", "string", value("status.phase", ""), description="The status of the namespace."),
        AGE,
    ),
    "Endpoints": (NAME, Column("Endpoints", "string", endpoints, description="Addresses and ports."), AGE),
    "LimitRange": (NAME, CREATED_AT),
    "Role": (NAME, CREATED_AT),
    "ClusterRole": (NAME, CREATED_AT),
    "RoleBinding": _BINDING_COLUMNS,
    "ClusterRoleBinding": _BINDING_COLUMNS,
    "CustomResourceDefinition": (NAME, CREATED_AT),
    "ReplicaSet": _SET_COLUMNS,
    "Event": (
        Column("Last Seen", "string", event_time("lastTimestamp"), description="When it happened last."),
        Column("Type", "string", value("type", ""), description="Normal or Warning."),
        Column("Reason", "string", value("reason", ""), description="One word."),
        Column("Object", "string", event_object, description="What it is about."),
        Column(
            "Subobject", "string", value("involvedObject.fieldPath", ""), description="Which part of it.", priority=1
        ),
        Column("Source", "string", event_source, description="Who reports it.", priority=1),
        Column("Message", "string", lambda obj, _now: at(obj, "message", "").strip(), description="What happened."),
        Column("First Seen", "string", event_time("firstTimestamp"), description="When it happened first.", priority=1),
        Column(
            "Count",
            "string",
            lambda obj, _now: at(obj, "series.count") or at(obj, "count", 1),
            description="How often.",
            priority=1,
        ),
        Column(
            "Name",
            "string",
            lambda obj, _now: obj["metadata"]["name"],
            format="name",
            description="Name of the event.",
            priority=1,
        ),
    ),
    "Node": (
        NAME,
        Column("Status", "string", node_status, description="The status of the node."),
        Column("Roles", "string", node_roles, description="The roles of the node."),
        AGE,
        Column("Version", "string", value("status.nodeInfo.kubeletVersion", ""), description="Version of the kubelet."),
    ),
    "PersistentVolumeClaim": (
        NAME,
        Column("Status", "string", value("status.phase", ""), description="Pending, Bound or Lost."),
        Column("Volume", "string", value("spec.volumeName", ""), description="The volume that it is bound to."),
        Column("Capacity", "string", text("status.capacity.storage", ""), description="What the volume holds."),
        Column("Access Modes", "string", access_modes, description="How the volume may be mounted."),
        Column("StorageClass", "string", value("spec.storageClassName", ""), description="Class of the volume."),
        Column(
            "VolumeAttributesClass",
            "string",
            value("spec.volumeAttributesClassName", "<unset>"),
            description="Class of its attributes.",
        ),
        AGE,
        Column(
            "VolumeMode", "string", value("spec.volumeMode", "<unset>"), description="Filesystem or Block.", priority=1
        ),
    ),
    "Pod": (
        NAME,
        Column(
            "Ready",
            "string",
            pod_ready,
            description="The aggregate readiness state of this pod for accepting traffic.",
        ),
        Column(
            "Status",
            "string",
            lambda pod, _now: pod_status(pod),
            description="The aggregate status of the containers in this pod.",
        ),
        Column("Restarts", "string", restarts, description="How often the containers were restarted, and when last."),
        AGE,
        Column("IP", "string", value("status.podIP"), description="Address of the pod.", priority=1),
        Column("Node", "string", value("spec.nodeName"), description="Where it runs.", priority=1),
        Column(
            "Nominated Node", "string", value("status.nominatedNodeName"), description="Where it will run.", priority=1
        ),
        Column("Readiness Gates", "string", readiness_gates, description="Conditions that must hold.", priority=1),
    ),
    "Service": (
        NAME,
        Column("Type", "string", value("spec.type", ""), description="How the service is exposed."),
        Column("Cluster-IP", "string", value("spec.clusterIP"), description="Address inside the cluster."),
        Column("External-IP", "string", external_ip, description="Addresses outside the cluster."),
        Column("Port(s)", "string", ports, description="Ports that it listens on."),
        AGE,
        Column(
            "Selector",
            "string",
            lambda obj, _now: selector_text({"matchLabels": at(obj, "spec.selector", {})}),
            description="Label selector.",
            priority=1,
        ),
    ),
    "ResourceQuota": (
        NAME,
        Column(
            "Request",
            "string",
            quota(lambda name: not name.startswith("limits.")),
            description="Used and allowed requests.",
        ),
        Column(
            "Limit", "string", quota(lambda name: name.startswith("limits.")), description="Used and allowed limits."
        ),
        AGE,
    ),
    "Deployment": (
        NAME,
        Column(
            "Ready", "string", ready_of("spec.replicas"), description="Number of pods that are ready, of those wanted."
        ),
        Column(
            "Up-to-date",
            "string",
            value("status.updatedReplicas", 0),
            description="Number of pods of the newest template.",
        ),
        Column(
            "Available",
            "string",
            value("status.availableReplicas", 0),
            description="Number of pods ready for long enough.",
        ),
        AGE,
        *_containers(_TEMPLATE),
        _selector("spec.selector"),
    ),
    "StatefulSet": (
        NAME,
        Column(
            "Ready", "string", ready_of("spec.replicas"), description="Number of pods that are ready, of those wanted."
        ),
        AGE,
        *_containers(_TEMPLATE),
    ),
    "HorizontalPodAutoscaler": (
        NAME,
        Column("Reference", "string", reference, description="What is scaled."),
        Column("Targets", "string", hpa_targets, description="Measured and wanted metrics."),
        Column("MinPods", "string", text("spec.minReplicas", "<unset>"), description="Lower limit."),
        Column("MaxPods", "string", value("spec.maxReplicas", 0), description="Upper limit."),
        Column("Replicas", "string", value("status.currentReplicas", 0), description="Number of pods."),
        AGE,
    ),
    "Job": (
        NAME,
        Column("Status", "string", job_status, description="Status of the job."),
        Column("Completions", "string", completions, description="Pods that succeeded, of those wanted."),
        Column("Duration", "string", job_duration, description="Time required to complete the job."),
        AGE,
        *_containers(_TEMPLATE),
        _selector("spec.selector"),
    ),
    "CronJob": (
        NAME,
        Column("Schedule", "string", value("spec.schedule", ""), description="In cron format."),
        Column("Timezone", "string", value("spec.timeZone"), description="Of the schedule."),
        Column("Suspend", "boolean", lambda obj, _now: str(bool(at(obj, "spec.suspend"))), description="No new runs."),
        Column("Active", "integer", lambda obj, _now: len(at(obj, "status.active", ())), description="Jobs that run."),
        Column(
            "Last Schedule",
            "string",
            lambda obj, now: (
                age(at(obj, "status.lastScheduleTime"), now) if at(obj, "status.lastScheduleTime") else "<none>"
            ),
            description="When it ran last.",
        ),
        AGE,
        *_containers("spec.jobTemplate.spec.template.spec.containers"),
        _selector("spec.jobTemplate.spec.selector"),
    ),
    "Lease": (NAME, Column("Holder", "string", value("spec.holderIdentity", ""), description="Who holds it."), AGE),
    "EndpointSlice": (
        NAME,
        Column("AddressType", "string", value("addressType", ""), description="IPv4, IPv6 or FQDN."),
        Column("Ports", "string", slice_ports, description="Ports of the endpoints."),
        Column("Endpoints", "string", slice_addresses, description="Addresses."),
        AGE,
    ),
    "NetworkPolicy": (
        NAME,
        Column(
            "Pod-Selector",
            "string",
            lambda obj, _now: selector_text(at(obj, "spec.podSelector")),
            description="Pods that it is about.",
        ),
        AGE,
    ),
    "PodDisruptionBudget": (
        NAME,
        Column(
            "Min Available",
            "string",
            pdb_bound("minAvailable"),
            description="The minimum number of pods that must be available.",
        ),
        Column(
            "Max Unavailable",
            "string",
            pdb_bound("maxUnavailable"),
            description="The maximum number of pods that may be unavailable.",
        ),
        Column(
            "Allowed Disruptions",
            "integer",
            value("status.disruptionsAllowed", 0),
            description="How many may be disrupted now.",
        ),
        AGE,
    ),
}
