"""The application of examples/documents, to be served: its folder is $DOCUMENTS."""

from __future__ import annotations

import os
from pathlib import Path

from examples.documents.app import create

app = create(Path(os.environ["DOCUMENTS"]), {"token-of-ada": "ada", "token-of-bob": "bob"})
