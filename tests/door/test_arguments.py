"""Objects that live only as long as a request are refused as arguments."""

from __future__ import annotations

from typing import Any

import pytest

import bgruntime
from bgruntime import Runtime, task
from tests.door.turns import from_thread

REFUSED = (ValueError, TypeError, bgruntime.BgRuntimeError)


def stranger(module: str, name: str) -> Any:
    """An instance of a class that says it is `module.name`, without that package."""
    return type(name, (), {"__module__": module})()


def child_of(module: str, name: str) -> Any:
    """An instance of an application's subclass of `module.name`."""
    parent = type(name, (), {"__module__": module})
    return type("Ours", (parent,), {"__module__": "application"})()


FORBIDDEN = {
    "request": lambda: stranger("starlette.requests", "Request"),
    "upload": lambda: stranger("starlette.datastructures", "UploadFile"),
    "fastapi upload": lambda: child_of("starlette.datastructures", "UploadFile"),
    "session": lambda: stranger("sqlalchemy.orm.session", "Session"),
    "async session": lambda: stranger("sqlalchemy.ext.asyncio.session", "AsyncSession"),
    "connection": lambda: stranger("starlette.requests", "HTTPConnection"),
    "subclass of request": lambda: child_of("starlette.requests", "Request"),
    "subclass of session": lambda: child_of("sqlalchemy.orm.session", "Session"),
}


def real_request() -> Any:
    requests = pytest.importorskip("starlette.requests")
    return requests.Request({"type": "http", "headers": [], "method": "GET", "path": "/"})


def real_upload() -> Any:
    import io

    datastructures = pytest.importorskip("starlette.datastructures")
    return datastructures.UploadFile(io.BytesIO(b"content"), filename="a.txt")


FORBIDDEN["real request"] = real_request
FORBIDDEN["real upload"] = real_upload


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_a_request_object_is_refused_with_what_to_pass_instead(run: Any, kind: str) -> None:
    called: list[Any] = []

    @task
    async def handle(first: Any = None, *, second: Any = None) -> None:
        called.append(first or second)

    thing = FORBIDDEN[kind]()
    mention = type(thing).__name__

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(REFUSED, match=rf"(?is){mention}.*(pass|instead)"):
                await rt.submit(handle, thing)
            with pytest.raises(REFUSED, match=rf"(?i){mention}"):
                await rt.submit(handle, second=thing)
            with pytest.raises(REFUSED, match=rf"(?i){mention}"):
                rt.submit_nowait(handle, thing)
            with pytest.raises(REFUSED, match=rf"(?i){mention}"):
                await rt.submit_many(handle, [(1,), (thing,)])
            with pytest.raises(REFUSED, match=rf"(?i){mention}"):
                await from_thread(lambda: rt.submit_threadsafe(handle, thing))
            with pytest.raises(REFUSED, match=rf"(?i){mention}"):
                await rt.map(handle, [thing])
            with pytest.raises(REFUSED, match=rf"(?i){mention}"):
                await rt.gather(handle.bind(thing))
            await rt.drain()
            assert rt.jobs() == []

    run(main)
    assert called == []


@pytest.mark.parametrize(
    ("name", "said"), [("UploadFile", "an UploadFile does"), ("Request", "a Request does")]
)
def test_the_refusal_is_said_in_plain_english(run: Any, name: str, said: str) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(REFUSED, match=said):
                await rt.submit(repr, stranger("starlette.things", name))

    run(main)


def test_a_plain_function_is_refused_such_an_argument_too(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(REFUSED, match="(?i)request"):
                await rt.submit(repr, stranger("starlette.requests", "Request"))

    run(main)


def test_a_class_of_the_application_with_such_a_name_is_a_fine_argument(run: Any) -> None:
    request = stranger("application.models", "Request")

    async def main() -> Any:
        async with Runtime() as rt:
            return await (await rt.submit(lambda given: given, request))

    assert run(main) is request
