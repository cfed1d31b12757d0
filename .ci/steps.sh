# Sourced by the other scripts: run steps one after another, go on after a failure, tell at the end.

failed=()

step() { # step NAME COMMAND…
    local name=$1 began=$SECONDS
    shift
    echo "── $name"
    if "$@"; then
        echo "   $name: fine, $((SECONDS - began)) s"
    else
        echo "   $name: FAILED, $((SECONDS - began)) s"
        failed+=("$name")
    fi
}

finish() { # say what failed, and exit accordingly
    if ((${#failed[@]})); then
        printf 'failed: %s\n' "${failed[@]}"
        exit 1
    fi
    echo "all fine, $SECONDS s"
    exit 0
}

find_python() { # prints a Python of version $1, from PATH or from pyenv
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1" python3; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

in_venv() { # in_venv PYTHON GROUP ARGS… : run Python with ARGS where GROUP is installed
    local python
    python=$("$1" .ci/venv.py "$2") && shift 2 && "$python" "$@"
}
