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
