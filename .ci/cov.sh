#!/usr/bin/env bash
# make cov: branch coverage of the whole, which must reach 95 %, and of the kernel's rooms and the journal,
# which must be complete.
#
# Python 3.12 made Tasks eager, so some lines of the kernel are for 3.11 and some for the others: its tests
# are run once more on a Python from the other side. What is left out has its reason where it stands.
set -u
cd "$(dirname "$0")/.."
source .ci/steps.sh
python=$1

eager() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; }
others=(3.11)
eager "$python" || others=(3.13 3.12 3.14)
other=
for version in "${others[@]}"; do
    [[ -n $other ]] || other=$(find_python "$version")
done

report() { # report PERCENT FILES… : fails below that
    "$python" -m coverage report --fail-under="$1" ${2:+--include="$2"}
}

rm -f .coverage .coverage.*
data=(.coverage.all)
step "tests, $("$python" -V)" "$python" -m coverage run --data-file=.coverage.all -m pytest -q --ignore=tests/house
if [[ -n $other ]]; then
    data+=(.coverage.kernel)
    step "kernel, $("$other" -V)" in_venv "$other" dev -m coverage run --data-file=.coverage.kernel -m pytest -q \
        -m "not slow" tests/{door,model,parts,promises,traps,zoo}
fi
step "coverage of both together" "$python" -m coverage combine --quiet "${data[@]}"
step "coverage of everything" report 95
kernel=100
if [[ -z $other ]]; then
    echo "No Python ${others[*]} was found: what the kernel has for it counts as missing, and is only told."
    kernel=0
fi
for room in _model _parts _engine; do
    step "coverage of bgruntime/$room" report "$kernel" "bgruntime/$room/*"
done
step "coverage of bgruntime/journal" report 100 "bgruntime/journal/*"
finish
