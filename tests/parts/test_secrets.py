"""Secrets are found where they hide, and taken out in every form; names and texts say what people know."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from pathlib import PurePosixPath

import pytest
from pydantic import SecretStr

from bgruntime import Runtime, task
from bgruntime._parts.secrets import DEPTH, MASK, Secrets, secret_parts
from bgruntime._parts.texts import name_of
from bgruntime._parts.timers import Timers


@dataclass
class Login:
    user: str
    password: SecretStr


class Slotted:
    __slots__ = ("never_set", "token")

    def __init__(self, token):
        self.token = token


class Below(Slotted):
    __slots__ = "more"


class Private:
    __slots__ = ("__token", "__weakref__")

    def __init__(self, token):
        self.__token = token


class Card(Enum):
    GOLD = "g0ld"
    BLUE = "blue"


class Mute:
    def __init__(self, text):
        self.text = text

    def __str__(self):
        raise RuntimeError("no text")


UUID = uuid.UUID("0f3c2f0e-6f57-4f0a-9d4f-3b8f1d2f9a11")


class Odd:
    @property
    def __dict__(self):
        raise RuntimeError("nobody looks at me")


def nested(value, depth):
    return nested([value], depth - 1) if depth else value


@pytest.mark.parametrize(
    "hides",
    [
        SecretStr("s3cr3t"),
        Login("ann", SecretStr("s3cr3t")),
        {"deep": [({"er": Login("ann", SecretStr("s3cr3t"))},)]},
        Slotted(SecretStr("s3cr3t")),
        Below(SecretStr("s3cr3t")),
        Private(SecretStr("s3cr3t")),
    ],
)
def test_a_secret_is_found_in_whatever_holds_it(hides):
    (found,) = secret_parts(hides)
    assert found.get_secret_value() == "s3cr3t"


def test_the_look_goes_so_deep_and_no_deeper():
    assert list(secret_parts(nested(SecretStr("s"), DEPTH - 1)))
    assert not list(secret_parts(nested(SecretStr("s"), DEPTH)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("s3cr3t", "with s3cr3t in it"),
        (SecretStr("s3cr3t"), "with s3cr3t in it"),
        (b"s3cr3t", "with b's3cr3t' in it"),
        (1234567, "with 1234567 in it"),
        (12.5, "with 12.5 in it"),
        (7, "with 7 in it"),
        ({"pin": ["4711", None, True]}, "with 4711 in it"),
        (UUID, f"with {UUID} in it"),
        ([UUID], f"with {UUID.hex} in it"),
        (Decimal("1234.50"), "with 1234.50 in it"),
        (date(1970, 3, 4), "with 1970-03-04 in it"),
        (date(1970, 3, 4), "with datetime.date(1970, 3, 4) in it"),
        (datetime(1970, 3, 4, 5, 6), "with 1970-03-04T05:06:00 in it"),
        (PurePosixPath("/srv/s3cr3t"), "with /srv/s3cr3t in it"),
        (PurePosixPath("/srv/s3cr3t"), "with s3cr3t in it"),
        (Card.GOLD, "with Card.GOLD in it"),
        (Card.GOLD, "with g0ld in it"),
        (ip_address("10.1.2.3"), "with 10.1.2.3 in it"),
        (Below("s3cr3t"), "with s3cr3t in it"),
        (Private("s3cr3t"), "with s3cr3t in it"),
        ('qu"ote', 'with "qu\\"ote" in it'),
        ("a b/ä", "with a%20b%2F%C3%A4 in it"),
    ],
)
def test_a_value_is_taken_out_in_the_forms_in_which_it_is_written(value, text):
    scrubbed = Secrets(value).scrub(text)
    assert MASK in scrubbed
    assert scrubbed.startswith("with ")
    assert scrubbed.endswith(" in it")


def test_a_short_value_is_taken_out_only_where_it_stands_alone():
    assert Secrets(7).scrub("7 of 1755") == f"{MASK} of 1755"


def test_of_a_path_and_an_enum_only_the_value_itself_is_taken_out():
    text = "srv / blue tests.parts.test_secrets"
    assert Secrets(PurePosixPath("/srv/s3cr3t"), Card.GOLD).scrub(text) == text


@pytest.mark.parametrize("much", [["key"] * 1_001, "x" * 20_001, [b"y" * 100] * 250])
def test_where_there_is_too_much_to_look_for_nothing_of_a_text_is_left(much):
    assert Secrets(much).scrub("a text") == "[redacted]"
    assert Secrets(much).scrub("") == ""


def test_what_has_no_text_is_still_looked_into():
    assert Secrets(Mute("s3cr3t")).scrub("s3cr3t") == MASK


def test_nothing_is_taken_out_for_what_has_no_text():
    assert Secrets(None, True, "", nested("deep", DEPTH + 1)).scrub("deep True None") == "deep True None"
    assert not Secrets()


def test_of_a_job_whose_arguments_cannot_be_looked_at_nothing_is_said(run):
    async def main():
        heard = []

        class Listener:
            def on_event(self, event):
                heard.append(getattr(event, "message", ""))

        @task
        async def fail(odd):
            raise ValueError("perhaps a secret")

        async with Runtime(observers=[Listener()]) as rt:
            job = await rt.submit(fail, Odd())
            await job.wait()
            assert isinstance(job.exception(), ValueError)
        assert not any("secret" in str(text) and "perhaps" in str(text) for text in heard)

    run(main)


def test_a_class_has_the_name_by_which_it_is_known():
    assert name_of(ValueError) == "ValueError"
    assert name_of(Timers) == "bgruntime.Timers"
    assert name_of(Login).endswith("test_secrets.Login")
