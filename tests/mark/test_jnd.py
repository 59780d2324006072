"""The grayscale standard display function against the standard's own tables, and what it says of display steps."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.mark.visibility.jnd import CALIBRATED, OFFICE, jnd_index_of, luminance_of
from gateway.mark.visibility.threshold import JND

# PS3.14, Table B-1: JND index -> luminance in cd/m2.
TABLE_B1 = {1: 0.0500, 2: 0.0547, 70: 0.9640, 1023: 3993.4040}

# PS3.14, Table D.2-1: P-Value -> optical density of a film on a light box of 2000 cd/m2 under 10 cd/m2 of ambient
# light, densities 0.2 to 3.0. P-Values are equal steps of the JND index between the two ends.
TABLE_D2 = {
    0: 3.000,
    1: 2.936,
    2: 2.880,
    12: 2.506,
    24: 2.239,
    60: 1.742,
    120: 1.186,
    156: 0.905,
    192: 0.641,
    254: 0.207,
}


def test_luminance_agrees_with_table_b1() -> None:
    for index, luminance in TABLE_B1.items():
        assert luminance_of(index) == pytest.approx(luminance, rel=1e-4, abs=5e-5)
        assert jnd_index_of(luminance) == pytest.approx(index, abs=0.1)


def test_both_directions_agree_with_table_d2() -> None:
    box, ambient = 2000.0, 10.0
    darkest, brightest = jnd_index_of(ambient + box * 10.0 ** -np.array([3.0, 0.2]))
    assert darkest == pytest.approx(233.32, abs=0.05)  # said in Annex D.2
    for value, density in TABLE_D2.items():
        luminance = luminance_of(darkest + (brightest - darkest) * value / 255.0)
        assert -np.log10((luminance - ambient) / box) == pytest.approx(density, abs=0.0015)


def test_the_two_directions_are_inverse_and_rise() -> None:
    indices = np.linspace(71.5, 653.0, 400)  # 1 to 350 cd/m2
    luminances = luminance_of(indices)
    assert (np.diff(luminances) > 0).all()
    assert np.allclose(jnd_index_of(luminances), indices, atol=0.03)


@pytest.mark.parametrize(("function", "values"), [(luminance_of, (0.5, 1024.0)), (jnd_index_of, (0.04, 4001.0, -1.0))])
def test_outside_its_range_the_function_is_not_defined(function, values) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"1\.\.1023|0\.05 to 4000"):
            function(np.array([100.0, value]))


def test_on_a_calibrated_screen_one_budget_jnd_is_one_jnd_at_every_gray() -> None:
    before = np.linspace(0.0, 1.0 - JND, 50)
    assert np.allclose(CALIBRATED.difference(before, before + JND), 1.0, atol=1e-3)


def test_on_an_office_screen_it_depends_on_the_gray() -> None:
    """Hand-made: luminance by the power law, index by the standard's polynomial, no table in between."""
    before = np.array([0.01, 0.13, 0.5, 0.99])
    after = before + JND
    by_hand = jnd_index_of(1.0 + 349.0 * after**2.2) - jnd_index_of(1.0 + 349.0 * before**2.2)
    jnds = OFFICE.difference(before, after)
    assert np.allclose(jnds, by_hand, atol=2e-3)
    assert jnds[1] == pytest.approx(1.67, abs=0.01)  # dark gray: what the budget calls one JND is more there
    assert jnds[0] < 0.5 and jnds[3] < 0.6
    ends = OFFICE.index(np.array([0.0, 1.0]))
    assert np.allclose(ends, CALIBRATED.index(np.array([0.0, 1.0])))
