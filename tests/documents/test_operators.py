"""The pages of examples/documents that show and steer the jobs of everybody are for operators."""

from __future__ import annotations

import pytest

pytest.importorskip("apsw", reason="needs the group 'documents': make documents")
pytest.importorskip("tokenizers", reason="needs the group 'documents': make documents")
pytest.importorskip("pypdf", reason="needs the group 'documents': make documents")

from examples.documents import app as documents
from tests.integrations.asgi import serve

USERS = {"token-of-you": "you", "token-of-bob": "bob"}


def test_a_user_who_is_no_operator_sees_and_steers_nothing_of_others(run, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MiniLM", object)

    async def main():
        async with serve(documents.create(tmp_path, USERS)) as client:
            for method, path in (("GET", "/failures"), ("GET", "/jobs"), ("POST", "/pause")):
                for user, status in (("bob", 403), ("you", 200)):
                    headers = {"authorization": f"Bearer token-of-{user}", "X-Bgruntime": "1"}
                    assert (await client.request(method, path, headers=headers)).status == status, path
            assert (await client.get("/metrics/tasks")).status == 200

    run(main)
