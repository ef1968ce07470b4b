#!/bin/sh
# Installs Nearline into an image, for the Dockerfile: install.sh EXTRAS [REQUIREMENT...]
# Next to it are the two wheels and constraints.txt.
set -eu
wheels=$(dirname "$0")
extras=$1
shift
pip install --no-cache-dir --no-compile --constraint "$wheels/constraints.txt" \
    "$wheels"/nearline-*.whl "nearline-server[$extras] @ file://$(echo "$wheels"/nearline_server-*.whl)" "$@"

cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
# OpenVINO's plugins for other devices and formats are larger than all of Nearline.
for plugin in intel_gpu intel_npu onnx paddle tensorflow jax gguf; do
    rm -rf openvino/libs/libopenvino_"$plugin"*
done
rm -rf openvino/libs/cache.json openvino/include
# Nearline reads buckets through obstore; nothing here speaks Arrow's protocol of tables.
rm -rf pyarrow/include pyarrow/src pyarrow/*flight* pyarrow/*arrow_s3* pyarrow/_s3fs*
# numpy imports a part of its tests.
find . -path ./numpy -prune -o -type d -name tests -prune -exec rm -rf {} +
# The file system of a container is read-only: without bytecode, each start would compile every
# module. Hashes in place of times let a layer have any time.
PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash .
