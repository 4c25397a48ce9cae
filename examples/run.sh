#!/bin/sh
# What `make run` does: the example specs, on this machine, from nothing to predictions.
set -eu
reconcile="${BIN:-.venv/bin}/reconcile"
python="${BIN:-.venv/bin}/python"
home="${TRUEUP_HOME:-.trueup}"

echo "== The data plane of this machine: a Kubernetes API, what runs its pods, and an Envoy"
"$reconcile" up --home "$home"

echo
echo "== The models' repository, made from examples/models"
rm -rf "$home/models.git"
"$python" examples/make_repository.py "$home/models.git"
mirror="https://git.example.com/acme/models.git=file://$(cd "$home" && pwd)/models.git"

echo
echo "== What the specs ask for: built, tested, served (the first time takes a minute or two)"
"$reconcile" -f examples/specs --home "$home" --mirror "$mirror" --wait 600

echo
echo "== Once more: nothing is left to do"
"$reconcile" -f examples/specs --home "$home" --mirror "$mirror" --detailed-exitcode

echo
echo "== Predictions, through the gateways"
"$python" examples/tour.py "$home/kubeconfig"

echo
echo "== Look at it"
echo "  export KUBECONFIG=$(cd "$home" && pwd)/kubeconfig"
echo "  kubectl get gateways,httproutes,deployments,pods,jobs -A"
echo "  kubectl logs -n acme-health -l trueup.dev/variation=default -f"
echo "  make down      # when you have seen enough"
