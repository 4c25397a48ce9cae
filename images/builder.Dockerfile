# The builder: fetches a model's code, installs its dependencies, builds and tests it, and stores the artifact.
#
#   docker build -f images/builder.Dockerfile -t ghcr.io/trueup/builder:0.1.0 .
#   docker build -f images/builder.Dockerfile -t ghcr.io/trueup/builder-gpu:0.1.0 \
#     --build-arg BASE=nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 .
#
# A model is served by the Python that it was built with, so server.Dockerfile takes the same BASE.
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
# git and ssh fetch code; a compiler and headers build the dependencies that have no wheel.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
      build-essential ca-certificates git openssh-client \
      $(command -v python3 >/dev/null || echo python3 python3-dev python3-venv) \
 && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/trueup/bin:$PATH
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    python3 -m venv /opt/trueup \
 && wheel="$(ls /wheels/*.whl)" \
 && /opt/trueup/bin/pip install --no-cache-dir "trueup[runtime] @ file://$wheel"
# The pods say who they are (10001), have a read-only root, and write to /workspace and /tmp only: both are volumes.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trueup
USER 10001:10001
WORKDIR /workspace
ENTRYPOINT ["python", "-m", "runtime"]
CMD ["--help"]
