#!/usr/bin/env bash
# make cov: branch coverage of the whole, which must reach 95 %, and of the kernel's rooms.
set -u
cd "$(dirname "$0")/.."
source .ci/steps.sh
python=$1

step "tests" "$python" -m coverage run -m pytest -q --ignore=tests/house
step "coverage of everything" "$python" -m coverage report --fail-under=95
for room in _model _parts _engine; do
    step "coverage of bgruntime/$room" "$python" -m coverage report --include="bgruntime/$room/*"
done
finish
