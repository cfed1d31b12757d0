"""One call, and every line of an application has the same form and leaves by a thread of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import structlog

from bgruntime import Runtime, current_job, task
from bgruntime.logs import configure
from tests.logs.lines import Stream

app = logging.getLogger("shop")


@pytest.fixture
def stream() -> Stream:
    return Stream()


@task
async def pay(number: int) -> None:
    app.info("paying %d", number)


@task
async def fail(text: str = "no such account") -> None:
    raise LookupError(text)


def of(stream: Stream, event: str) -> list[dict]:
    return [one for one in stream.events if one["event"] == event]


def test_lines_of_structlog_logging_and_uvicorn_have_one_form(stream):
    with configure(json=True, stream=stream) as logs:
        structlog.get_logger("shop").info("order.placed", total=3)
        app.info("order %d placed", 7)
        logging.getLogger("uvicorn.access").info('%s - "%s %s"', "127.0.0.1", "GET", "/")
        assert logs.flush()
    assert [(one["event"], one["logger"], one["level"]) for one in stream.events] == [
        ("order.placed", "shop", "info"),
        ("order 7 placed", "shop", "info"),
        ('127.0.0.1 - "GET /"', "uvicorn.access", "info"),
    ]
    assert all(one["timestamp"].endswith("Z") for one in stream.events)
    assert stream.events[0]["total"] == 3


def test_extra_fields_of_logging_are_fields(stream):
    with configure(json=True, stream=stream):
        app.warning("late", extra={"order": 7, "args_": [1]})
    [line] = stream.events
    assert (line["order"], line["args_"]) == (7, [1])


def test_uvicorns_own_handlers_give_way_and_come_back(stream):
    uvicorn = logging.getLogger("uvicorn.access")
    handler = logging.NullHandler()
    uvicorn.addHandler(handler)
    uvicorn.propagate = False
    try:
        with configure(json=True, stream=stream):
            assert (uvicorn.handlers, uvicorn.propagate) == ([], True)
        assert (uvicorn.handlers, uvicorn.propagate) == ([handler], False)
    finally:
        uvicorn.removeHandler(handler)
        uvicorn.propagate = True


def test_closing_puts_everything_back(stream):
    root = logging.getLogger()
    before = (root.level, root.handlers[:], structlog.is_configured())
    configure(json=True, stream=stream).close()
    assert (root.level, root.handlers[:], structlog.is_configured()) == before


def test_every_line_inside_a_job_carries_the_job(run, stream):
    @task
    async def with_child() -> str:
        async def child() -> None:
            app.info("child")

        structlog.get_logger("shop").info("own", answer=42)
        await asyncio.gather(child())
        return current_job().id

    def in_thread() -> None:
        app.info("thread")

    async def main():
        async with Runtime() as rt:
            app.info("outside")
            job = await rt.submit(with_child)
            await job
            threaded = await rt.submit(in_thread)
            await threaded
            return job.id, threaded.id

    with configure(json=True, stream=stream):
        job_id, threaded_id = run(main)
    [own], [child], [thread], [outside] = (of(stream, name) for name in ("own", "child", "thread", "outside"))
    for line in (own, child):
        assert (line["job_id"], line["task"], line["attempt"]) == (job_id, with_child.name, 1)
    assert own["answer"] == 42
    assert thread["job_id"] == threaded_id
    assert "job_id" not in outside


def test_the_contextvars_of_structlog_are_on_every_line_of_the_job(run, stream):
    async def main():
        structlog.contextvars.bind_contextvars(request_id="r-1")
        async with Runtime() as rt:
            await (await rt.submit(pay, 1))
        structlog.contextvars.clear_contextvars()

    with configure(json=True, stream=stream):
        run(main)
    assert [one["request_id"] for one in of(stream, "paying 1")] == ["r-1"]


@pytest.mark.parametrize(("level", "expected"), [("INFO", 0), ("DEBUG", 1)])
def test_the_ends_of_good_jobs_are_written_at_debug_only(run, stream, level, expected):
    async def main():
        async with Runtime() as rt:
            await (await rt.submit(pay, 1))

    with configure(json=True, stream=stream, level=level):
        run(main)
    for event in ("job.started", "job.completed"):
        assert len(of(stream, event)) == expected


def test_a_failure_has_its_error_and_a_traceback_without_local_variables(run, stream):
    @task
    async def leaky() -> None:
        password = "hunter2-in-a-local"
        raise LookupError(f"{len(password)} characters")

    async def main():
        async with Runtime() as rt:
            await (await rt.submit(leaky)).wait()

    with configure(json=True, stream=stream):
        run(main)
    [line] = of(stream, "job.failed")
    assert (line["error_type"], line["error"], line["level"]) == ("LookupError", "18 characters", "error")
    assert "in leaky" in line["traceback"]
    assert "LookupError: 18 characters" in line["traceback"]
    assert "bgruntime/_engine" not in line["traceback"]
    written = stream.getvalue()
    assert "hunter2-in-a-local" not in written.replace('password = \\"hunter2-in-a-local\\"', "")


def test_an_exception_logged_by_the_application_has_no_local_variables(stream):
    def broken() -> None:
        password = "hunter2" * 2
        raise ValueError(len(password))

    with configure(json=True, stream=stream):
        try:
            broken()
        except ValueError:
            app.exception("broke")
            structlog.get_logger("shop").exception("broke.too")
    for line in stream.events:
        assert "ValueError: 14" in line["exception"]
    assert "hunter2hunter2" not in stream.getvalue()


NASTY = [
    "a\r\nfake: line",
    "\x1b[31mred\x1b[0m",
    "bell\x07 backspace\x08 nul\x00",
    "next line\x85 line\u2028 paragraph\u2029",
    "right to left \u202e override \u2066 isolate",
    "surrogate \udc80",
]


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("text", NASTY)
def test_one_event_is_one_line_whatever_it_holds(stream, as_json, text):
    with configure(json=as_json, stream=stream):
        app.warning("from outside: %s", text)
        structlog.get_logger("shop").warning("nested", value=text, **{"key\n" + text[:3]: [text]})
    assert len(stream.getvalue().splitlines()) == len(stream.getvalue().split("\n")) - 1 == 2
    written = stream.getvalue().replace("\n", "")
    assert written.isprintable()
    if as_json and "\udc80" not in text:
        assert stream.events[1]["value"] == text


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        {(1, 2): 3},
        {1, 2},
        b"bytes",
        object(),
        1 << 70,
        None,
        {"a": [float("nan")]},
    ],
    ids=["nan", "infinity", "a tuple as key", "set", "bytes", "object", "big", "None", "nan within"],
)
def test_any_value_is_valid_json(stream, value):
    def no(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    with configure(json=True, stream=stream):
        structlog.get_logger("shop").info("odd", value=value)
    assert "value" in json.loads(stream.getvalue(), parse_constant=no)


def test_a_value_that_contains_itself_or_cannot_be_shown_is_no_error(stream):
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    loop: list = []
    loop.append(loop)
    with configure(json=True, stream=stream):
        structlog.get_logger("shop").info("odd", loop=loop, rude=Rude(), args=(1,))
    [line] = stream.events
    assert "Rude" in line["rude"]


def test_chinese_stays_readable(stream):
    with configure(json=True, stream=stream):
        app.info("订单完成")
    assert "订单完成" in stream.getvalue()


def test_a_hanging_sink_holds_no_job_and_the_dropped_lines_are_counted_and_said(run, stream):
    @task
    async def chatty() -> None:
        for _ in range(10):
            app.info("word")

    async def main():
        async with Runtime() as rt:
            began = time.monotonic()
            for _ in range(10):
                await (await rt.submit(chatty))
            return time.monotonic() - began

    with configure(json=True, stream=stream, queue_size=20) as logs:
        stream.hold()
        took = run(main)
        assert took < 5
        assert logs.dropped >= 50
        assert not logs.flush(timeout=0.01)
        stream.release()
        assert logs.flush()
        app.info("afterwards")
        assert logs.flush()
    assert sum(one["count"] for one in of(stream, "log.dropped")) == logs.dropped
    assert of(stream, "afterwards")


def test_a_failing_sink_fails_nobody_and_is_counted(run, stream):
    async def main():
        async with Runtime() as rt:
            await (await rt.submit(pay, 1))
            return rt.stats().completed

    with configure(json=True, stream=stream) as logs:
        stream.broken = True
        assert run(main) == 1
        assert logs.flush()
        assert logs.failed >= 1
        stream.broken = False
        app.info("again")
    assert of(stream, "again")


def test_files_are_turned_and_the_old_ones_kept(tmp_path):
    path = tmp_path / "logs" / "app.log"
    with configure(json=True, file=path, max_bytes=2_000, keep=2) as logs:
        for number in range(60):
            app.info("line %d", number)
        assert logs.flush()
    names = sorted(one.name for one in path.parent.iterdir())
    assert names == ["app.log", "app.log.1", "app.log.2"]
    assert all(0 < one.stat().st_size <= 2_000 for one in path.parent.iterdir())
    newest = json.loads(path.read_text().splitlines()[-1])
    assert newest["event"] == "line 59"


def test_a_file_and_a_stream_get_the_same_lines(tmp_path, stream):
    with configure(json=True, file=tmp_path / "app.log", stream=stream):
        app.info("both")
    assert (tmp_path / "app.log").read_text() == stream.getvalue()


def test_an_unknown_level_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="LOUD"):
        configure(level="LOUD")


def test_the_writing_thread_ends_with_close(stream):
    before = threading.active_count()
    logs = configure(json=True, stream=stream)
    logs.close()
    names = [thread.name for thread in threading.enumerate() if thread.name == "bgruntime-logs"]
    for thread in threading.enumerate():
        if thread.name == "bgruntime-logs":
            thread.join(5)
    assert threading.active_count() <= before, names


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_what_was_logged_last_is_written_before_the_interpreter_exits():
    done = fresh("""
        import logging
        from bgruntime.logs import configure
        configure(json=True, level="INFO")
        for number in range(500):
            logging.getLogger("app").info("line %d", number)
    """)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "line 499"


def test_lines_are_json_when_not_on_a_terminal():
    done = fresh("""
        import logging
        from bgruntime.logs import configure
        configure()
        logging.getLogger("app").info("hello")
    """)
    assert json.loads(done.stderr)["event"] == "hello"


def test_a_forked_child_writes_its_own_lines(tmp_path):
    done = fresh(f"""
        import logging, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from bgruntime.logs import configure
        logs = configure(json=True, file={str(tmp_path / "app.log")!r})
        logging.getLogger("app").info("parent")
        logs.flush()
        pid = os.fork()
        if not pid:
            logging.getLogger("app").info("child")
            logs.flush()
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line)["event"] for line in (tmp_path / "app.log").read_text().splitlines()]
    assert sorted(lines) == ["child", "parent"]


class Unreadable(dict):
    """A value that says nothing of itself but what the test must not find in a line."""

    def items(self):
        raise RuntimeError("hunter2")


def test_a_line_that_cannot_be_rendered_is_said_without_anything_of_it(stream):
    with configure(json=True, stream=stream):
        structlog.get_logger("shop").info("hunter2", password="hunter2", value=Unreadable())
        app.info("%d", "hunter2")
    assert [one["event"] for one in stream.events] == ["log.unrenderable"] * 2
    assert "hunter2" not in stream.getvalue()


def test_nothing_goes_around_a_redactor_that_fails_and_the_application_hears_no_error(stream, monkeypatch):
    def fail(*_):
        raise RuntimeError("hunter2")

    with configure(json=True, stream=stream, redact=["account"]):
        monkeypatch.setattr("bgruntime.logs._redact.Redactor.__call__", fail)
        logging.getLogger("hunter2").info("hunter2")
        structlog.get_logger("shop").info("hunter2", account="hunter2")
    assert [(one["event"], one["level"]) for one in stream.events] == [("log.unrenderable", "error")] * 2
    assert "hunter2" not in stream.getvalue()
