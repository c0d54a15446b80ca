#!/bin/sh
# Rewrites requirements/*.txt from pyproject.toml. Needs `uv` on PATH; run after changing a dependency.
set -eu
cd "$(dirname "$0")/.."
compile() { uv pip compile -q pyproject.toml requirements/build.in "$@" --generate-hashes --python-version 3.11 --no-header --no-annotate; }
compile --extra server --extra onnx --extra s3 -o requirements/server.txt
compile --extra server --extra onnx --extra s3 --extra otel --extra pysyft --extra dev -c requirements/server.txt -o requirements/dev.txt
