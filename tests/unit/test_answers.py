# SPDX-License-Identifier: Apache-2.0
"""A cloud may say anything: what becomes of it."""

import base64
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from ciming import answers


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Not found", "Not found"),
        ("a\r\n2026-01-01 ERROR forged\0\x1b[31m", "a 2026-01-01 ERROR forged[31m"),
        ("swordfish is wrong, swordfish", "*** is wrong, ***"),
        (None, "None"),
        ({"password": "swordfish"}, "{'password': '***'}"),
    ],
)
def test_words(text: Any, shown: str) -> None:
    assert answers.words(text, ["swordfish"]) == shown


@pytest.mark.parametrize("secret", ["sword fish&", 'sword"fish\\ü', "swordfish?>~"])
@pytest.mark.parametrize(
    "said",
    [
        str,
        repr,
        json.dumps,
        urllib.parse.quote_plus,
        lambda secret: urllib.parse.quote(secret, safe=""),
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: secret.encode().decode("latin-1"),
        lambda secret: repr(secret.encode())[1:],
        lambda secret: repr(json.dumps(secret)[1:-1]),
        lambda secret: urllib.parse.quote(json.dumps(secret)[1:-1]),
        lambda secret: json.dumps(json.dumps(secret)[1:-1]),
    ],
)
def test_a_secret_said_otherwise(said: Callable[[str], str], secret: str) -> None:
    shown = answers.words(f"got {said(secret)} from you", [secret]).replace('"', "").replace("'", "")
    assert shown.replace("=", "") == "got *** from you"


def test_a_secret_that_is_no_text() -> None:
    assert answers.words('"\\ud800x" is wrong', ["\ud800x"]) == '"***" is wrong'


def test_no_secret() -> None:
    assert answers.words("Not found", [""]) == "Not found"


def test_not_too_many_of_them() -> None:
    assert answers.words("x" * 10_000) == "x" * answers.LONGEST
    assert "swordfish" not in answers.words("x" * (answers.LONGEST - 3) + "swordfish", ["swordfish"])


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({}, True),
        ({"size": None, "name": "", "other": []}, True),
        ({"size": 0, "name": "x" * 5}, True),
        ({"size": 9}, True),
        ({"size": 10}, False),
        ({"size": -1}, False),
        ({"size": True}, False),
        ({"size": 1.0}, False),
        ({"size": "1"}, False),
        ({"name": "x" * 6}, False),
        ({"name": 5}, False),
        ([], False),
        (None, False),
    ],
)
def test_kinds(value: Any, fits: bool) -> None:
    kinds = {"size": lambda each: answers.is_whole(each, 9), "name": lambda each: answers.is_text(each, 5)}
    assert answers.fits(value, kinds) == fits
