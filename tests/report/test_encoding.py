"""JSON for strict readers."""

import json
import math

import pytest

from bench.report.encoding import as_json


def test_what_json_cannot_hold_is_null():
    rows = [{"a": math.nan, "b": math.inf, "c": None, "d": 2**53 + 1, "e": 0.1, "f": 'é\n"', "g": True}]
    text = as_json(rows, tuple("abcdefg"))
    (row,) = json.loads(text, parse_constant=pytest.fail)
    assert row == {"a": None, "b": None, "c": None, "d": 2**53 + 1, "e": 0.1, "f": 'é\n"', "g": True}
    assert json.loads(as_json([], ("a",))) == []
