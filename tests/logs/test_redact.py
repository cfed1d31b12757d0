"""What a log must not hold does not reach it."""

from __future__ import annotations

import logging

import pytest
import structlog
from pydantic import BaseModel, SecretStr

from bgruntime import Runtime, task
from bgruntime.logs import Redactor, configure
from tests.logs.lines import Stream

SENTINEL = "s3nt1nel-4111-1111"
app = logging.getLogger("shop")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "db_password",
            "DB-PASSWORD",
            "userPassword",
            "passwd",
            "X-Api-Key",
            "apiKey",
            "api_key",
        ),
        *("Authorization", "token", "access_token", "refreshToken", "client_secret", "Set-Cookie", "cookie"),
        *("sessionId", "private_key", "dsn", "DATABASE_URL"),
    ],
)
def test_a_value_under_a_telling_name_is_masked(name):
    event = Redactor()(None, "", {"event": "login", "data": {"list": [{name: SENTINEL}]}, name: SENTINEL})
    assert SENTINEL not in repr(event)


@pytest.mark.parametrize(
    "name", ["tokens_used", "author", "passenger", "secretary", "task", "job_id", "duration_s"]
)
def test_other_names_are_left_alone(name):
    assert Redactor()(None, "", {"event": "login", name: "seen"})[name] == "seen"


def test_an_application_adds_names_of_its_own():
    event = Redactor(["birth-date"])(
        None, "", {"event": "x", "birthDate": "1970", "other": {"birth_date": "1970"}}
    )
    assert "1970" not in repr(event)


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://app:{SENTINEL}@db/shop refused",
        f"Authorization: Bearer {SENTINEL}",
        f"GET /x?token={SENTINEL}&page=1",
        f"login failed: password={SENTINEL}",
        f"{{'api_key': '{SENTINEL}'}}",
    ],
)
def test_credentials_in_a_text_are_masked(text):
    assert SENTINEL not in repr(Redactor()(None, "", {"event": text, "error": text}))


def test_ordinary_texts_are_left_as_they_are():
    text = "GET https://example.org/orders?page=2 took 3 s: basic idea, token ring"
    assert Redactor()(None, "", {"event": text})["event"] == text


class Login(BaseModel):
    user: str
    password: SecretStr


@task(redact=["card"])
async def charge(card: str, login: Login) -> None:
    plain = login.password.get_secret_value()
    app.warning("charging %s for %s", card, plain)
    structlog.get_logger("shop").warning("charge", detail={"n": [card]}, both=f"{card}/{plain}")
    try:
        raise LookupError(f"{card} unknown")
    except LookupError as error:
        app.exception("failed")
        raise ValueError(f"cannot charge {card} with {plain}") from error


@pytest.mark.parametrize("as_json", [True, False])
def test_the_secrets_of_a_job_are_in_no_line_of_it(run, as_json):
    stream = Stream()

    async def main():
        async with Runtime() as rt:
            login = Login(user="ann", password=SecretStr("pa55-in-a-model"))
            await (await rt.submit(charge, SENTINEL, login)).wait()

    with configure(json=as_json, stream=stream, level="DEBUG"):
        run(main)
    assert SENTINEL not in stream.getvalue()
    assert "pa55-in-a-model" not in stream.getvalue()
    assert "cannot charge [redacted] with [redacted]" in stream.getvalue()
    assert "job.failed" in stream.getvalue()


def test_secrets_stay_secret_while_a_timed_out_attempt_cleans_up(run, clock):
    stream = Stream()

    @task(redact=["card"], timeout=5)
    async def slow(card: str) -> None:
        import asyncio

        try:
            await asyncio.Event().wait()
        finally:
            app.warning("cleaning up for %s", card)

    async def main():
        async with Runtime() as rt:
            job = await rt.submit(slow, SENTINEL)
            await clock.advance(6)
            await job.wait()

    with configure(json=True, stream=stream):
        run(main)
    assert "cleaning up for [redacted]" in stream.getvalue()
    assert SENTINEL not in stream.getvalue()


def test_arguments_and_results_are_never_logged(run):
    stream = Stream()

    @task
    async def greet(name: str) -> str:
        return f"result for {name}"

    async def main():
        async with Runtime() as rt:
            await (await rt.submit(greet, "an-argument"))

    with configure(json=True, stream=stream, level="DEBUG"):
        run(main)
    assert "an-argument" not in stream.getvalue()
    assert "job.completed" in stream.getvalue()


def test_a_number_that_is_a_secret_is_in_no_field(run):
    stream = Stream()

    @task(name="pays", redact=["pin", "rate"])
    async def pay(pin: int, rate: float, tries: int) -> None:
        structlog.get_logger("shop").warning("paid", pin_=pin, all=[{"rate": rate}], tries=tries, fine=True)

    async def main():
        async with Runtime() as rt:
            await rt.submit(pay, 471_100, 12.75, 3)
            await (await rt.submit(pay, 1, 12.75, 3))

    with configure(json=True, stream=stream):
        run(main)
    first, second = (one for one in stream.events if one["event"] == "paid")
    assert (first["pin_"], first["all"]) == ("[redacted]", [{"rate": "[redacted]"}])
    assert (first["tries"], first["fine"]) == (3, True)
    assert (second["pin_"], second["attempt"]) == ("[redacted]", 1)
