"""Pictures are well-formed SVG and hold the answer's numbers."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from chatapp.explain import pictures
from tests.explain import values

SVG = "{http://www.w3.org/2000/svg}"


def read(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)


def test_the_heat_map_has_a_cell_for_each_pair() -> None:
    found = values.attention(9, every=True)
    cells = list(read(pictures.heat_map(found)).iter(f"{SVG}rect"))[1:]
    shares = [float(cell.attrib["fill-opacity"]) for cell in cells]
    assert shares == pytest.approx([share for row in found.rows for share in row], abs=1e-4)
    places = {(cell.attrib["x"], cell.attrib["y"]) for cell in cells}
    assert len(places) == 9 * 10 // 2


def test_the_map_has_a_point_and_a_name_for_each_word() -> None:
    found = values.word_map(12)
    picture = read(pictures.word_map(found))
    dots = list(picture.iter(f"{SVG}circle"))
    order = sorted(range(12), key=lambda number: found.points[number].x)
    assert order == sorted(range(12), key=lambda number: float(dots[number].attrib["cx"]))
    downwards = sorted(range(12), key=lambda number: -found.points[number].y)
    assert downwards == sorted(range(12), key=lambda number: float(dots[number].attrib["cy"]))
    names = [one.text for one in picture.iter(f"{SVG}text")]
    assert "word3␛" in names


def test_the_cache_has_two_lines() -> None:
    found = values.cache_run()
    lines = list(read(pictures.cache_run(found)).iter(f"{SVG}polyline"))
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 3]
    lowest = [float(line.attrib["points"].split()[-1].split(",")[1]) for line in lines]
    assert lowest[0] > lowest[1]  # less time is nearer to the bottom
