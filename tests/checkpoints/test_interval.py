"""Intervals: read with their unit, refused without one, passed when they should."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixpro.checkpoints.saver import Interval
from pixpro.errors import UserError


@pytest.mark.parametrize(("text", "amount", "unit"), [("10min", 10, "min"), ("1 step", 1, "steps"), ("2ep", 2, "ep")])
def test_intervals_are_read_with_their_unit(text, amount, unit):
    assert Interval.parse(text) == Interval(amount, unit)


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_other_interval_is_refused(text):
    try:
        interval = Interval.parse(text)
    except UserError as error:
        assert repr(text) in str(error)
    else:
        assert interval.amount > 0 and interval.unit in ("min", "steps", "ep")


def test_intervals_pass_when_they_should():
    assert [n for n in range(1, 10) if Interval.parse("3steps").passed(n, 0, False, 0.0)] == [3, 6, 9]
    assert Interval.parse("2ep").passed(5, 2, True, 0.0) and not Interval.parse("2ep").passed(5, 2, False, 99.0)
    assert not Interval.parse("2ep").passed(5, 3, True, 99.0)
    assert Interval.parse("0.5min").passed(1, 0, False, 0.5) and not Interval.parse("0.5min").passed(1, 0, False, 0.4)
