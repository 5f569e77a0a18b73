"""How numbers are printed: never more than is known, never wider than their column."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat import numbers

PROBABILITIES = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.85, "85.0 %"),
        (0.0031, "0.31 %"),
        (0.0099, "0.99 %"),
        (0.00996, "1.0 %"),
        (0.01, "1.0 %"),
        (0.014, "1.4 %"),
        (0.0001, "0.01 %"),
        (0.000099, "<0.01 %"),
        (1e-300, "<0.01 %"),
        (0.0, "0 %"),
        (-0.0, "0 %"),
        (-1e-9, "0 %"),
        (0.9994, "99.9 %"),
        (0.9995, "99.95 %"),
        (0.9999, "99.99 %"),
        (0.99999, ">99.99 %"),
        (1.0, "100 %"),
        (1 + 1e-7, "100 %"),
        (1.04, "104.0 %"),
        (-0.03, "-3.0 %"),
        (math.nan, "n/a"),
    ],
)
def test_percent(probability: float, text: str) -> None:
    assert numbers.percent(probability) == text


@given(PROBABILITIES)
def test_a_percentage_is_within_half_of_its_last_digit(probability: float) -> None:
    figure = numbers.percent_figure(probability)
    assert len(figure) <= 6
    if figure.startswith("<"):
        assert 0 < probability < 0.0001
    elif figure.startswith(">"):
        assert 0.9999 < probability < 1
    else:
        digits = len(figure.partition(".")[2])
        assert abs(float(figure) - probability * 100) <= 0.5 * 10**-digits + 1e-9
        assert (figure == "100") == (probability == 1)
        assert (figure == "0") == (probability == 0)


@given(PROBABILITIES, PROBABILITIES)
def test_percentages_keep_the_order(first: float, second: float) -> None:
    low, high = sorted((first, second))

    def shown(probability: float) -> tuple[float, int]:
        figure = numbers.percent_figure(probability)
        return float(figure.strip("<>")), {"<": -1, ">": 1}.get(figure[0], 0)

    assert shown(low) <= shown(high)


@given(PROBABILITIES, PROBABILITIES)
def test_a_pair_is_told_apart(first: float, second: float) -> None:
    one, other = numbers.percent_pair(first, second)
    if abs(first - second) >= 1e-7:
        assert one != other
    if first == second:
        assert one == other


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.42, "1.42 bit"),
        (0, "0 bit"),
        (-0.0, "0 bit"),
        (0.004, "<0.01 bit"),
        (99.996, "100.0 bit"),
        (math.inf, "∞ bit"),
        (math.nan, "n/a"),
    ],
)
def test_bits(value: float, text: str) -> None:
    assert numbers.bits(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1.519, "−1.52"), (-0.001, "0.00"), (3, "3.00"), (-math.inf, "−∞"), (math.nan, "n/a")],
)
def test_decimal(value: float, text: str) -> None:
    assert numbers.decimal(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.7, "0.7"), (0.65, "0.65"), (1, "1"), (0, "0"), (0.7312, "0.73")]
)
def test_temperature(value: float, text: str) -> None:
    assert numbers.temperature(value) == text


@given(st.integers(-(10**15), 10**15))
def test_a_count_keeps_its_digits_and_never_breaks(number: int) -> None:
    text = numbers.count(number)
    assert int(text.replace("\u00a0", "")) == number
    assert " " not in text
    assert re.fullmatch(r"-?\d{1,4}|-?\d{1,3}(\u00a0\d{3})+", text)


def test_counts_are_grouped_from_five_digits_on() -> None:
    assert numbers.count(9073) == "9073"
    assert numbers.count(49_129) == "49\u00a0129"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98_400_000, "98.4 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_230_000_000, "1.2 GB"),
    ],
)
def test_size(number: int, text: str) -> None:
    assert numbers.size(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(52.4, "52 tok/s"), (7.31, "7.3 tok/s"), (9.96, "10 tok/s"), (0.05, "0.05 tok/s"),
     (12_345, "12\u00a0345 tok/s"), (math.nan, "n/a")],
)  # fmt: skip
def test_rate(value: float, text: str) -> None:
    assert numbers.rate(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.085, "85 ms"),
        (0.9996, "1.0 s"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7440, "2 h 04 min"),
        (math.inf, "n/a"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text
