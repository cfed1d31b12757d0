"""What the OpenAPI document of the status pages says is all they answer, whatever they are asked."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integrations.server import served

pytestmark = pytest.mark.slow

EXAMPLES = 8  # of each operation, kind of data and person
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
IDS = ("done", "failed-1", "failed-2", "durable", "nowhere")
ADA, GUEST, NOBODY = {"X-User": "ada"}, {"X-User": "guest"}, dict[str, str]()


@pytest.fixture(scope="module", params=["open", "guarded"])
def board(request, tmp_path_factory):
    """The name of the board and the address where it is served."""
    journal = tmp_path_factory.mktemp("board") / "jobs.db"
    with served("tests.integrations.board:app", BOARD=request.param, BOARD_JOURNAL=journal) as server:
        yield request.param, f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_answers_as_the_document_says(board, mode):
    kind, address = board
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    people = [ADA, GUEST, NOBODY] if kind == "guarded" else [NOBODY]
    asked = 0
    for found in schema.get_all_operations():
        asked += ask(found.ok(), mode, people)
    assert asked >= EXAMPLES


def ask(operation, mode, people) -> int:
    """Ask one operation many things; how many that were."""
    asked = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def one(case):
        nonlocal asked
        for person in people:
            case.call_and_validate(headers=person, checks=CHECKS)
            asked += 1
        if "id" in case.path_parameters:
            case.path_parameters["id"] = IDS[asked % len(IDS)]
            case.query.pop("wait", None)  # one of them would take its time
            case.call_and_validate(headers=people[0], checks=CHECKS)

    if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
        return 0
    one()
    return asked


def can_be_wrong(operation) -> bool:
    """Whether much can be said to this operation that does not fit."""
    return bool(operation.body) or bool(operation.query)
