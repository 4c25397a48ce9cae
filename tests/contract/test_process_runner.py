"""The process runner: Pods run as processes, and their status says of them what a kubelet would."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.node.processes import MARKER, all_pids, stat_of
from tests.contract.client import KUBECTL, ROOT, STRATEGIC, Api, eventually

Object = dict[str, Any]

#: Answers requests to `/` with 200 as long as there is no file `ill` in its folder; loads for as long as it is told.
WEB = """
import http.server, os, pathlib, signal, sys, time
time.sleep(float(os.environ.get("LOAD_SECONDS", "0")))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if pathlib.Path("ill").exists() else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
def end(*_):
    print("asked to end", flush=True)
    raise SystemExit(0)
signal.signal(signal.SIGTERM, end)
print("serving", flush=True)
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


class Runner:
    """An API server with a process runner on a data folder, as a process of its own."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self._log = (data.parent / f"{data.name}.log").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.node_server", "--data", str(data)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready"), self.log()
        self.api = Api(data / "kubeconfig", "embedded")

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.api.close()
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code

    def processes(self) -> list[int]:
        """Every process that carries the marker of this data folder."""
        name = (self.data / "node" / "name").read_text().strip()
        return [pid for pid in all_pids() if f"{MARKER}={name}/".encode() in environment_of(pid)]


def lives(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat.state != "Z"


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(
        tmp_path_factory.mktemp("runner") / "data", MY_OWN_TOKEN="hunter2", PIP_INDEX_URL="https://pip.example"
    )
    yield runner
    assert "Traceback" not in runner.log(), runner.log()
    assert runner.end() == 0
    assert runner.processes() == []


class Pods:
    """The pods of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.path = f"/api/v1/namespaces/{namespace}"
        self.namespace = namespace

    def create(self, name: str, *containers: Object, **spec: Any) -> None:
        body = {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": containers, **spec}}
        answer = self.api("POST", f"{self.path}/pods", body)
        assert answer.status == 201, answer.body

    def secret(self, name: str, **data: str) -> None:
        answer = self.api("POST", f"{self.path}/secrets", {"metadata": {"name": name}, "stringData": data})
        assert answer.status == 201, answer.body

    def get(self, name: str) -> Object:
        answer = self.api("GET", f"{self.path}/pods/{name}")
        return answer.body if answer.status == 200 else {}

    def status(self, name: str) -> Object:
        return self.get(name).get("status", {})

    def container(self, name: str, index: int = 0) -> Object:
        found = self.status(name).get("containerStatuses", [])
        return found[index] if found else {}

    def condition(self, name: str, wanted: str) -> Object:
        return next((one for one in self.status(name).get("conditions", ()) if one["type"] == wanted), {})

    def is_ready(self, name: str) -> bool:
        return self.condition(name, "Ready").get("status") == "True"

    def ended(self, name: str) -> Object:
        """The status of a pod once it has run to its end."""
        return eventually(
            lambda: status if (status := self.status(name)).get("phase") in ("Succeeded", "Failed") else {}
        )

    def terminated(self, name: str) -> Object:
        return self.ended(name)["containerStatuses"][0]["state"]["terminated"]

    def log(self, name: str, query: str = "") -> str:
        answer = self.api("GET", f"{self.path}/pods/{name}/log?{query}")
        assert answer.status == 200, answer.body
        return answer.body

    def refused(self, name: str, query: str = "") -> str:
        answer = self.api("GET", f"{self.path}/pods/{name}/log?{query}")
        assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
        return answer.body["message"]

    def events(self, name: str) -> list[tuple[str, str]]:
        found = self.api("GET", f"{self.path}/events").body["items"]
        return [(one["reason"], one["message"]) for one in found if one["involvedObject"]["name"] == name]

    def delete(self, name: str, query: str = "") -> None:
        assert self.api("DELETE", f"{self.path}/pods/{name}?{query}").status == 200


@pytest.fixture
def pods(runner: Runner) -> Iterator[Pods]:
    name = f"runner-{secrets.token_hex(4)}"
    runner.api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield Pods(runner.api, name)
    runner.api("DELETE", f"/api/v1/namespaces/{name}")


def python(code: str, **more: Any) -> Object:
    return {"name": "main", "image": "registry.example/main:1", "command": ["python", "-c", code], **more}


def shell(script: str, **more: Any) -> Object:
    return {"name": "main", "image": "registry.example/main:1", "command": ["sh", "-c", script], **more}


def web(**more: Any) -> Object:
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8080}]
    return python(WEB, **{"env": [POD_IP], "ports": ports, "readinessProbe": probe, **more})


# What runs


def test_a_pod_runs_to_its_end_and_says_how_it_went(pods: Pods) -> None:
    fetch = shell("echo code > /workspace/file", volumeMounts=[{"name": "work", "mountPath": "/workspace"}])
    main = shell(
        "cat /workspace/file; printf result > /dev/termination-log; exit 3", volumeMounts=fetch["volumeMounts"]
    )
    volumes = [{"name": "work", "emptyDir": {}}]
    pods.create("a", main, initContainers=[{**fetch, "name": "fetch"}], volumes=volumes, restartPolicy="Never")
    status = pods.ended("a")
    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["ready"] is True
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    main_status = status["containerStatuses"][0]
    state = main_status.pop("state")["terminated"]
    assert main_status.pop("containerID") == state.pop("containerID")
    assert main_status == {
        "name": "main", "image": "registry.example/main:1", "imageID": "",
        "ready": False, "started": False, "restartCount": 0, "lastState": {},
    }  # fmt: skip
    assert state.pop("startedAt") <= state.pop("finishedAt")
    assert state == {"exitCode": 3, "reason": "Error", "message": "result"}
    assert pods.log("a") == "code\n"
    conditions = {one["type"]: (one["status"], one.get("reason")) for one in status["conditions"]}
    assert conditions == {
        "PodScheduled": ("True", None),
        "Initialized": ("True", None),
        "PodReadyToStartContainers": ("False", None),
        "ContainersReady": ("False", "PodFailed"),
        "Ready": ("False", "PodFailed"),
    }
    pod = pods.get("a")
    assert pod["spec"]["nodeName"] == "embedded"
    assert status["podIP"] != status["hostIP"]
    assert status["podIP"].startswith("127.")


def test_a_pod_that_did_all_it_should_has_succeeded(pods: Pods) -> None:
    pods.create("a", shell("true"), restartPolicy="Never")
    assert pods.ended("a")["phase"] == "Succeeded"
    assert pods.condition("a", "Ready")["reason"] == "PodCompleted"


def test_the_node_says_that_it_runs_processes(runner: Runner) -> None:
    status = runner.api("GET", "/api/v1/nodes/embedded").body["status"]
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    assert ready["status"] == "True"
    assert "images are not pulled" in ready["message"]
    assert int(status["allocatable"]["cpu"]) >= 1


def test_an_environment_holds_what_the_manifest_says_and_nothing_of_the_user(pods: Pods) -> None:
    pods.secret("keys", token="s3cr3t:/tmp", other="x")
    env = [
        {"name": "A", "value": "one"},
        {"name": "B", "value": "$(A) $$(A) $(MISSING)"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "none", "optional": True}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "WHERE", "value": "/tmp/x"},
        POD_IP,
    ]
    resources = {"requests": {"cpu": "1500m"}, "limits": {"memory": "512Mi"}}
    more = [{"secretRef": {"name": "keys"}, "prefix": "K_"}]
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    pods.create("a", python(code, env=env, envFrom=more, resources=resources), restartPolicy="Never")
    status = pods.ended("a")
    found = pods.api("GET", f"{pods.path}/pods/a/log").body
    assert (found["A"], found["B"]) == ("one", "one $(A) $(MISSING)")
    assert (found["TOKEN"], found["K_token"], found["K_other"]) == ("s3cr3t:/tmp", "s3cr3t:/tmp", "x")
    assert "NONE" not in found
    assert (found["LIMIT"], found["APP"], found["POD_IP"]) == ("512", "a", status["podIP"])
    assert (found["OMP_NUM_THREADS"], found["PIP_INDEX_URL"]) == ("2", "https://pip.example")
    assert "TRUEUP_CACHE_DIR" in found
    assert found["HOME"] == found["TMPDIR"] == str(Path(found["WHERE"]).parent)
    assert found["HOME"].endswith("/main/tmp")
    assert "MY_OWN_TOKEN" not in found


def test_a_missing_secret_is_waited_for(pods: Pods) -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "late", "key": "token"}}}]
    pods.create("a", shell("echo $TOKEN", env=env), restartPolicy="Never")
    waiting = eventually(
        lambda: pods.container("a").get("state", {}).get("waiting", {}).get("message") and pods.container("a")
    )
    assert waiting["state"]["waiting"] == {"reason": "CreateContainerConfigError", "message": 'secret "late" not found'}
    pods.secret("late", another="x")
    missing = f"couldn't find key token in Secret {pods.namespace}/late"
    eventually(lambda: pods.container("a")["state"]["waiting"]["message"] == missing)
    patch = {"stringData": {"token": "there"}}
    assert pods.api("PATCH", f"{pods.path}/secrets/late", patch, content_type=STRATEGIC).status == 200
    assert pods.ended("a")["phase"] == "Succeeded"
    assert pods.log("a") == "there\n"


def test_a_missing_volume_is_waited_for_and_a_mounted_one_follows_its_secret(pods: Pods) -> None:
    volumes = [{"name": "keys", "secret": {"secretName": "late", "defaultMode": 0o440}}]
    mounts = [{"name": "keys", "mountPath": "/var/run/secrets/keys"}]
    script = "stat -c %a /var/run/secrets/keys/token; until grep -q two /var/run/secrets/keys/token; do sleep 0.1; done"
    pods.create("a", shell(script, volumeMounts=mounts), volumes=volumes, restartPolicy="Never")
    eventually(
        lambda: (
            ("FailedMount", 'MountVolume.SetUp failed for volume "keys" : secret "late" not found') in pods.events("a")
        )
    )
    assert pods.container("a")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    pods.secret("late", token="one")
    eventually(lambda: "running" in pods.container("a")["state"])
    patch = {"stringData": {"token": "two"}}
    assert pods.api("PATCH", f"{pods.path}/secrets/late", patch, content_type=STRATEGIC).status == 200
    assert pods.ended("a")["phase"] == "Succeeded"
    assert pods.log("a") == "440\n"


def test_a_program_that_is_not_there_is_a_start_error(pods: Pods) -> None:
    pods.create("a", {"name": "main", "image": "x", "command": ["no-such-program"]}, restartPolicy="Never")
    state = pods.terminated("a")
    assert (state["reason"], state["exitCode"]) == ("StartError", 128)
    assert state["message"] == 'exec: "no-such-program": executable file not found in $PATH'


def test_an_image_is_not_asked_for_a_command(pods: Pods) -> None:
    pods.create("a", {"name": "main", "image": "x"})
    waiting = eventually(
        lambda: pods.container("a").get("state", {}).get("waiting", {}).get("message") and pods.container("a")
    )
    assert waiting["state"]["waiting"]["reason"] == "CreateContainerError"
    assert "no command specified" in waiting["state"]["waiting"]["message"]
    pods.delete("a")
    eventually(lambda: not pods.get("a"))


def test_more_memory_than_the_limit_ends_a_container(pods: Pods) -> None:
    greedy = "import time; x = b'x' * (300 << 20); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {greedy!r}])"
    pods.create("a", python(code, resources={"limits": {"memory": "200Mi"}}), restartPolicy="Never")
    state = pods.terminated("a")
    assert (state["reason"], state["exitCode"], state["signal"]) == ("OOMKilled", 137, 9)


def test_a_pod_that_runs_too_long_has_failed(pods: Pods) -> None:
    pods.create("a", shell("exec sleep 60"), restartPolicy="Never", activeDeadlineSeconds=1)
    status = pods.ended("a")
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


def test_the_message_of_a_failure_may_be_the_end_of_its_log(pods: Pods) -> None:
    script = "for i in $(seq 200); do echo line $i; done; exit 1"
    pods.create("a", shell(script, terminationMessagePolicy="FallbackToLogsOnError"), restartPolicy="Never")
    lines = pods.terminated("a")["message"].splitlines()
    assert lines == [f"line {number}" for number in range(121, 201)]


def test_a_long_termination_message_is_cut(pods: Pods) -> None:
    pods.create("a", python("open('/dev/termination-log', 'w').write('x' * 5000 + 'end')"), restartPolicy="Never")
    message = pods.terminated("a")["message"]
    assert (len(message), message[-4:]) == (4096, "xend")


@pytest.mark.parametrize("thing", ["mkfifo $M", "mkdir $M", "ln -s /dev/zero $M"], ids=["pipe", "folder", "link"])
def test_what_is_no_file_is_no_termination_message_and_stops_nobody(pods: Pods, thing: str) -> None:
    script = f"rm $M; {thing}; test -e /kept/ran && exec sleep 60; touch /kept/ran; exit 1"
    env = [{"name": "M", "value": "/dev/termination-log"}]
    kept = [{"name": "kept", "mountPath": "/kept"}]
    pods.create("a", shell(script, env=env, volumeMounts=kept), volumes=[{"name": "kept", "emptyDir": {}}])
    assert eventually(lambda: "running" in pods.container("a").get("state", {}) and pods.container("a")["lastState"])
    assert pods.container("a")["lastState"]["terminated"].items() >= {"exitCode": 1, "reason": "Error"}.items()
    assert "message" not in pods.container("a")["lastState"]["terminated"]
    pods.delete("a", "gracePeriodSeconds=0")


def test_a_container_may_have_any_name_and_finds_its_volumes(pods: Pods) -> None:
    work = [{"name": "work", "mountPath": "/workspace"}]
    fetch = shell("echo code > /workspace/file", volumeMounts=work) | {"name": "fetch"}
    main = shell("cat /workspace/file", volumeMounts=work) | {"name": "volumes"}
    pods.create("a", main, initContainers=[fetch], volumes=[{"name": "work", "emptyDir": {}}], restartPolicy="Never")
    assert pods.ended("a")["phase"] == "Succeeded"
    assert pods.log("a") == "code\n"


# How it is


def test_a_pod_is_ready_while_it_says_so(runner: Runner, pods: Pods) -> None:
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}
    startup = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 30}
    env = [POD_IP, {"name": "LOAD_SECONDS", "value": "1"}]
    pods.create("a", web(env=env, readinessProbe=probe, startupProbe=startup))
    eventually(lambda: "running" in pods.container("a").get("state", {}))
    assert (pods.container("a")["started"], pods.container("a")["ready"]) == (False, False)
    assert pods.condition("a", "Ready")["message"] == "containers with unready status: [main]"
    eventually(lambda: pods.is_ready("a"))
    assert (pods.container("a")["started"], pods.status("a")["phase"]) == (True, "Running")
    ill = (
        next((runner.data / "pods").glob(f"{pods.get('a')['metadata']['uid'].replace('-', '')[:12]}/main/work")) / "ill"
    )
    ill.touch()
    eventually(lambda: not pods.is_ready("a"))
    assert ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500") in pods.events("a")
    ill.unlink()
    eventually(lambda: pods.is_ready("a"))
    assert pods.container("a")["restartCount"] == 0


def test_a_container_that_is_not_alive_is_restarted(pods: Pods) -> None:
    probe = {"exec": {"command": ["sh", "-c", "test ! -e /tmp/ill"]}, "periodSeconds": 1, "failureThreshold": 1}
    script = "trap 'rm /tmp/ill; exit 7' TERM; sleep 0.5; touch /tmp/ill; while :; do sleep 0.05; done"
    pods.create("a", shell(script, livenessProbe=probe))
    status = eventually(lambda: one if (one := pods.container("a")).get("restartCount") else {})
    assert status["lastState"]["terminated"]["exitCode"] == 7
    assert ("Killing", "Container main failed liveness probe, will be restarted") in pods.events("a")


def test_a_container_that_crashes_is_restarted_more_and_more_slowly(pods: Pods) -> None:
    pods.create("a", shell("echo run; exit 5"))
    status = eventually(
        lambda: (
            one
            if (one := pods.container("a")).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
            else {}
        )
    )
    assert status["state"]["waiting"]["message"].startswith("back-off 1s restarting failed container=main pod=a_")
    assert status["lastState"]["terminated"]["exitCode"] == 5
    assert (status["ready"], status["started"]) == (False, False)
    assert pods.status("a")["phase"] == "Running"
    eventually(lambda: pods.container("a")["restartCount"] >= 2)
    assert pods.log("a", "previous=true") == "run\n"


def test_a_failure_is_made_up_for_and_a_success_ends_it(pods: Pods) -> None:
    script = "test -e /tmp/second && exit 0; touch /tmp/second; exit 1"
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    pods.create("a", shell(script, volumeMounts=mounts), restartPolicy="OnFailure", volumes=[{"name": "tmp"}])
    status = pods.ended("a")
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Succeeded", 1)
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1


def test_an_init_container_that_fails_keeps_the_others_from_starting(pods: Pods) -> None:
    pods.create("a", shell("echo never"), initContainers=[{**shell("exit 4"), "name": "first"}], restartPolicy="Never")
    status = pods.ended("a")
    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert pods.refused("a") == 'container "main" in pod "a" is waiting to start: PodInitializing'


def test_a_sidecar_runs_along_and_ends_last(pods: Pods) -> None:
    sidecar = {
        **shell("trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done"),
        "name": "side",
        "restartPolicy": "Always",
    }
    pods.create("a", shell("sleep 0.5"), initContainers=[sidecar], restartPolicy="Never")
    assert pods.ended("a")["phase"] == "Succeeded"
    assert pods.log("a", "container=side") == "hello\nbye\n"


# How it ends


def test_a_pod_gets_its_time_to_end(pods: Pods) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /dev/termination-log"]}}}
    pods.create("a", web(lifecycle=hook), terminationGracePeriodSeconds=20)
    eventually(lambda: pods.is_ready("a"))
    version = pods.get("a")["metadata"]["resourceVersion"]
    pods.delete("a")
    assert pods.get("a")["metadata"]["deletionGracePeriodSeconds"] == 20
    eventually(lambda: not pods.get("a"))
    with pods.api.watch(f"{pods.path}/pods", f"resourceVersion={version}&fieldSelector=metadata.name=a") as events:
        last = next(event["object"] for event in events if event["type"] == "DELETED")
    state = last["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["message"], last["status"]["phase"]) == (0, "hook\n", "Succeeded")


def test_who_does_not_end_is_ended_with_all_that_it_started(runner: Runner, pods: Pods) -> None:
    script = "trap '' TERM; setsid sh -c 'while :; do sleep 1; done' & echo up; while :; do sleep 0.1; done"
    pods.create("a", shell(script), terminationGracePeriodSeconds=1)
    eventually(lambda: pods.container("a").get("ready") and pods.log("a") == "up\n")
    uid = pods.get("a")["metadata"]["uid"].encode()
    eventually(lambda: len([pid for pid in runner.processes() if uid in environment_of(pid)]) >= 3)
    begun = time.monotonic()
    pods.delete("a")
    eventually(lambda: not pods.get("a"))
    assert time.monotonic() - begun > 1
    assert not [pid for pid in runner.processes() if uid in environment_of(pid)]
    eventually(lambda: not list((runner.data / "pods").glob(f"{uid.decode().replace('-', '')[:12]}*")))


def test_what_a_container_leaves_running_ends_with_it(runner: Runner, pods: Pods) -> None:
    pods.create("a", shell("setsid sleep 1000 & sleep 1000 & sleep 0.3"), restartPolicy="Never")
    assert pods.ended("a")["phase"] == "Succeeded"
    uid = pods.get("a")["metadata"]["uid"].encode()
    assert not [pid for pid in runner.processes() if uid in environment_of(pid)]


def test_a_pod_deleted_by_force_ends_at_once(runner: Runner, pods: Pods) -> None:
    pods.create("a", shell("trap '' TERM; while :; do sleep 0.1; done"), terminationGracePeriodSeconds=60)
    eventually(lambda: pods.container("a").get("ready"))
    uid = pods.get("a")["metadata"]["uid"].encode()
    pods.delete("a", "gracePeriodSeconds=0")
    assert not pods.get("a")
    eventually(lambda: not [pid for pid in runner.processes() if uid in environment_of(pid)], 5)
    pods.create("a", shell("exec sleep 100"))  # of the same name, another one
    eventually(lambda: pods.container("a").get("ready"))


def test_a_namespace_takes_its_pods_along(runner: Runner) -> None:
    runner.api("POST", "/api/v1/namespaces", {"metadata": {"name": "brief"}})
    pods = Pods(runner.api, "brief")
    pods.create("a", shell("exec sleep 1000"))
    eventually(lambda: pods.container("a").get("ready"))
    uid = pods.get("a")["metadata"]["uid"].encode()
    runner.api("DELETE", "/api/v1/namespaces/brief")
    eventually(lambda: runner.api("GET", "/api/v1/namespaces/brief").status == 404)
    eventually(lambda: not [pid for pid in runner.processes() if uid in environment_of(pid)], 5)


def test_nothing_is_written_while_nothing_changes(pods: Pods) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    pods.create("a", web(readinessProbe=probe, livenessProbe=probe))
    eventually(lambda: pods.is_ready("a"))
    before = pods.api("GET", "/api/v1/pods").body["metadata"]["resourceVersion"]
    time.sleep(2.5)
    assert pods.api("GET", "/api/v1/pods").body["metadata"]["resourceVersion"] == before


# What it printed


def test_a_log_is_read_as_it_is_asked_for(pods: Pods) -> None:
    pods.create(
        "a", shell("for i in 1 2 3; do echo line $i; echo error $i >&2; done; printf unfinished"), restartPolicy="Never"
    )
    pods.ended("a")
    whole = "line 1\nerror 1\nline 2\nerror 2\nline 3\nerror 3\nunfinished"
    assert pods.log("a") == whole
    assert pods.log("a", "tailLines=2") == "error 3\nunfinished"
    assert pods.log("a", "tailLines=0") == ""
    assert pods.log("a", "limitBytes=8") == "line 1\ne"
    assert pods.log("a", "sinceSeconds=3600") == whole
    assert pods.log("a", "sinceTime=2100-01-01T00:00:00Z") == ""
    moment, text = pods.log("a", "timestamps=true&tailLines=3").splitlines()[0].split(" ", 1)
    assert (text, len(moment), moment[-1]) == ("line 3", 30, "Z")
    assert pods.refused("a", "container=other") == "container other is not valid for pod a"
    assert pods.refused("a", "previous=true") == 'previous terminated container "main" in pod "a" not found'
    invalid = pods.api("GET", f"{pods.path}/pods/a/log?tailLines=-1")
    assert (invalid.status, invalid.body["reason"]) == (422, "Invalid")
    assert pods.api("POST", f"{pods.path}/pods/a/log", {}).status == 405
    assert pods.api("GET", f"{pods.path}/pods/none/log").status == 404


def test_a_log_of_several_containers_needs_a_name(pods: Pods) -> None:
    pods.create("a", shell("echo one"), {**shell("echo two"), "name": "other"}, restartPolicy="Never")
    pods.ended("a")
    assert pods.refused("a") == "a container name must be specified for pod a, choose one of: [main other]"
    assert pods.log("a", "container=other") == "two\n"


def test_kubectl_follows_a_log_to_its_end(runner: Runner, pods: Pods, tmp_path: Path) -> None:
    pods.create("a", shell("for i in 1 2 3; do echo line $i; sleep 0.3; done"), restartPolicy="Never")
    eventually(lambda: "running" in pods.container("a").get("state", {}))
    command = [
        KUBECTL,
        f"--kubeconfig={runner.api.kubeconfig}",
        f"--cache-dir={tmp_path}",
        f"--namespace={pods.namespace}",
    ]
    done = subprocess.run([*command, "logs", "-f", "a"], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "line 1\nline 2\nline 3\n"


def test_a_container_that_prints_without_end_disturbs_nobody(runner: Runner, pods: Pods) -> None:
    pods.create("a", shell("yes 0123456789012345678901234567890123456789"), restartPolicy="Never")
    eventually(lambda: "running" in pods.container("a").get("state", {}))
    folder = runner.data / "pods" / pods.get("a")["metadata"]["uid"].replace("-", "")[:12] / "main"
    eventually((folder / "0.log.old").exists)
    slowest, deadline = 0.0, time.monotonic() + 2
    while time.monotonic() < deadline:
        begun = time.monotonic()
        assert pods.get("a")
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 5
    assert sum(file.stat().st_size for file in folder.glob("*.log*")) <= 11 * 1024 * 1024
    assert len(pods.log("a")) > 2_000_000  # of 41 bytes a line, and 33 for its moment


# The runner's own end


def test_a_runner_that_stops_leaves_nothing_running(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "data")
    pods = Pods(runner.api, "default")
    pods.create("a", web(), terminationGracePeriodSeconds=60)
    pods.create("b", shell("exec sleep 1000"), restartPolicy="Never")
    eventually(lambda: pods.is_ready("a") and pods.container("b").get("ready"))
    begun = time.monotonic()
    assert runner.end() == 0
    assert time.monotonic() - begun < 40
    assert runner.processes() == []


def test_after_a_kill_the_leftovers_are_ended_and_pods_start_again(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    first = Runner(tmp_path / "data")
    pods = Pods(first.api, "default")
    stray = "setsid sleep 1000 & env -i sleep 1000 & sleep 1000"
    pods.create("always", shell(stray))
    pods.create("never", shell("exec sleep 1000"), restartPolicy="Never")
    pods.create("done", shell("echo kept"), restartPolicy="Never")
    eventually(lambda: pods.container("always").get("ready") and pods.container("never").get("ready"))
    pods.ended("done")
    eventually(lambda: len(first.processes()) >= 4)
    sessions = {stat.session for pid in first.processes() if (stat := stat_of(pid))}
    before = {pid for pid in all_pids() if (stat := stat_of(pid)) and stat.session in sessions}
    assert before > set(first.processes())  # one has hidden from the marker
    # The number of a process that has ended since, which another one has now.
    (
        tmp_path
        / "data"
        / "node"
        / "processes"
        / f"{bystander.pid}-1-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    ).touch()
    first.end(signal.SIGKILL)
    assert all(map(lives, before))
    second = Runner(tmp_path / "data")
    try:
        pods = Pods(second.api, "default")
        status = eventually(lambda: one if (one := pods.container("always")).get("ready") else {})
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
        assert pods.ended("never")["phase"] == "Failed"
        assert pods.terminated("never")["exitCode"] == 137
        assert pods.condition("never", "DisruptionTarget")["reason"] == "TerminationByKubelet"
        assert pods.status("done")["phase"] == "Succeeded"
        assert not any(map(lives, before))
        assert bystander.poll() is None
        assert pods.log("done") == "kept\n"
    finally:
        assert second.end() == 0
        bystander.kill()
        bystander.wait()
    assert second.processes() == []


def test_two_data_planes_have_addresses_of_their_own(runner: Runner, pods: Pods, tmp_path: Path) -> None:
    other = Runner(tmp_path / "data")
    others = Pods(other.api, "default")
    try:
        pods.create("a", web())
        others.create("a", web())
        eventually(lambda: pods.is_ready("a") and others.is_ready("a"))
        assert pods.status("a")["hostIP"] != others.status("a")["hostIP"]
        for one in (pods, others):
            socket.create_connection((one.status("a")["podIP"], 8080)).close()
    finally:
        assert other.end() == 0


def test_a_full_disk_is_said_and_outlived(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "data")
    pods = Pods(runner.api, "default")
    pods.create("before", shell("sleep 60"))
    eventually(lambda: "running" in pods.container("before").get("state", {}))
    # To its process it is the same: no file can grow any more.
    _, most = resource.prlimit(runner.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(runner.process.pid, resource.RLIMIT_FSIZE, (1, most))
    answer = runner.api("POST", f"{pods.path}/configmaps", {"metadata": {"name": "a"}, "data": {"a": "x" * 100_000}})
    assert (answer.status, answer.body["reason"]) == (500, "InternalError")
    assert answer.body["message"].startswith("the store cannot be written: ")
    assert "running" in pods.container("before")["state"]
    resource.prlimit(runner.process.pid, resource.RLIMIT_FSIZE, (most, most))
    pods.create("after", shell("true"), restartPolicy="Never")
    assert pods.ended("after")["phase"] == "Succeeded"
    assert runner.end() == 0
    assert runner.processes() == []
