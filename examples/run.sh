#!/bin/sh
# What `make run` does: the example specs, on this machine, from nothing to nothing left to do.
set -eu
reconcile="${BIN:-.venv/bin}/reconcile"
python="${BIN:-.venv/bin}/python"
home="${TRUEUP_HOME:-.trueup}"

echo "== The data plane of this machine: a Kubernetes API, kept in SQLite"
"$reconcile" up --home "$home"

echo
echo "== The models' repository, made from examples/models"
rm -rf "$home/models.git"
"$python" examples/make_repository.py "$home/models.git"
mirror="https://git.example.com/acme/models.git=file://$(cd "$home" && pwd)/models.git"

echo
echo "== What the specs ask for, applied"
"$reconcile" -f examples/specs --home "$home" --mirror "$mirror"

echo
echo "== Once more: nothing is left to do"
"$reconcile" -f examples/specs --home "$home" --mirror "$mirror" --detailed-exitcode

echo
echo "== Look at it"
echo "  export KUBECONFIG=$(cd "$home" && pwd)/kubeconfig"
echo "  kubectl get deployments,jobs,httproutes,scaledobjects -A"
echo "  make down      # when you have seen enough"
