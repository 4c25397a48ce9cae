# The server: takes the artifact of a build from object storage and answers predictions; and the resolver of audiences.
#
#   docker build -f images/server.Dockerfile -t ghcr.io/trueup/server:0.1.0 .
#   docker build -f images/server.Dockerfile -t ghcr.io/trueup/server-gpu:0.1.0 \
#     --build-arg BASE=nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 .
#
# The packages of the model come with its artifact, as they were tested: nothing is downloaded from an index here.
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
# libgomp1: what most numeric packages expect of the system.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libgomp1 \
      $(command -v python3 >/dev/null || echo python3 python3-venv) \
 && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/trueup/bin:$PATH
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    python3 -m venv /opt/trueup \
 && wheel="$(ls /wheels/*.whl)" \
 && /opt/trueup/bin/pip install --no-cache-dir "trueup[runtime] @ file://$wheel"
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trueup
USER 10001:10001
WORKDIR /workspace
EXPOSE 8080 9090
ENTRYPOINT ["python", "-m", "runtime"]
CMD ["--help"]
