# The reconciler: follows a Git branch of specs and trues clusters up to it. What charts/trueup runs.
#
#   docker build -f images/reconciler.Dockerfile -t ghcr.io/trueup/reconciler:0.1.0 .
#
# The driver of a warehouse comes in an image of your own: FROM this one, and as root
# `pip install psycopg[binary]` (pip is that of /opt/trueup).
ARG BASE=python:3.11-slim-bookworm

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY renderers renderers
COPY reconciler reconciler
COPY runtime runtime
COPY embedded embedded
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE}
# git and ssh fetch the specs; gnupg and ssh-keygen tell who has signed a commit.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git gnupg openssh-client \
 && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/trueup/bin:$PATH
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    python3 -m venv /opt/trueup \
 && wheel="$(ls /wheels/*.whl)" \
 && /opt/trueup/bin/pip install --no-cache-dir "trueup[sqlalchemy] @ file://$wheel"
# The pod has a read-only root, and writes to /var/lib/trueup and /tmp only: both are volumes.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trueup
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 9292
ENTRYPOINT ["reconcile"]
CMD ["--help"]
