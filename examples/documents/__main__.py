"""Serves the application: python -m examples.documents [FOLDER] [--port PORT]."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path

import uvicorn

from bgruntime.logs import configure

from .app import create


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.documents", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("documents-data"))
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    token = os.environ.get("DOCUMENTS_TOKEN") or secrets.token_urlsafe(16)
    with configure():
        print(f"your token: {token}\n\n{told(given.port, token)}", flush=True)
        uvicorn.run(create(given.folder, {token: "you"}), port=given.port, timeout_graceful_shutdown=20)


def told(port: int, token: str) -> str:
    """What to try first."""
    ask = f"curl -H 'Authorization: Bearer {token}' http://127.0.0.1:{port}"
    return f"{ask}/documents -F file=@README.md\n{ask}/search?q=what+is+never+lost\n{ask}/metrics/tasks\n"


if __name__ == "__main__":
    main()
