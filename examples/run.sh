#!/bin/sh
# What `make run` does: the example specs, on this machine, from nothing to a model that replaces itself by a better one.
set -eu
reconcile="${BIN:-.venv/bin}/reconcile"
python="${BIN:-.venv/bin}/python"
export TRUEUP_HOME="${TRUEUP_HOME:-.trueup}"
home="$TRUEUP_HOME"

echo "== The data plane of this machine: a Kubernetes API, what runs its pods, and an Envoy"
"$reconcile" up
has_prometheus=yes
sh examples/prometheus.sh start || has_prometheus=no

echo
echo "== The models' repository, made from examples/models"
rm -rf "$home/models.git"
"$python" examples/make_repository.py "$home/models.git"
mirror="https://git.example.com/acme/models.git=file://$(cd "$home" && pwd)/models.git"

echo
echo "== What the specs ask for: built, tested, served in staging (the first time takes a minute or two)"
"$reconcile" -f examples/specs --mirror "$mirror" --wait 600

echo
echo "== Production asks a person"
"$reconcile" status
waiting=$("$reconcile" status -o json | "$python" -c '
import json, sys
promotions = json.load(sys.stdin)["promotions"]
print(*(one["name"] for one in promotions if one["status"]["phase"] == "AwaitingApproval"))')
[ -z "$waiting" ] || "$reconcile" approve $waiting --reason "staging looks good"
"$reconcile" -f examples/specs --mirror "$mirror" --wait 600

echo
echo "== Once more: nothing is left to do"
"$reconcile" -f examples/specs --mirror "$mirror" --detailed-exitcode

echo
echo "== Predictions, through the gateways"
"$python" examples/tour.py "$home/kubeconfig"

echo
echo "== A better model replaces a worse one, and nothing else does"
if [ "$has_prometheus" = yes ]; then
	"$python" examples/promotion.py "$home" "$mirror"
else
	echo "Left out: no prometheus could be started on 127.0.0.1:9090 (Debian has one: apt-get install prometheus), and"
	echo "without one nobody can say how a canary does."
fi

echo
echo "== Look at it"
echo "  export KUBECONFIG=$(cd "$home" && pwd)/kubeconfig"
echo "  kubectl get builds,promotions -A"
echo "  kubectl get gateways,httproutes,deployments,pods,jobs -A"
echo "  kubectl logs -n acme-health -l trueup.dev/variation=default -f"
echo "  make down      # when you have seen enough"
