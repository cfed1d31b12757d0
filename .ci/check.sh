#!/usr/bin/env bash
# make check: style, types, floors. Runs with the Python of an environment that has the group `dev`.
set -u
cd "$(dirname "$0")/.."
source .ci/steps.sh
python=$1

step "ruff format" "$python" -m ruff format --check --quiet .
step "ruff lint" "$python" -m ruff check --quiet .
step "mypy --strict" "$python" -m mypy --no-error-summary
step "pyright" "$python" -m pyright --pythonpath "$python"
step "floors and names" "$python" -m pytest -q tests/house/test_floors.py tests/house/test_exported_names.py
finish
