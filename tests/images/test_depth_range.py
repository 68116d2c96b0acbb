"""The range over which a picture of more than 8 bits a sample is shown: what it states, or what most of it uses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixpro.errors import BadImage
from pixpro.images.decoding import decode, decode_and_tell
from tests.helpers.deep_pictures import RAMP, scaled, shown, tiff


def test_what_the_file_states_comes_before_what_it_holds():
    dark = (RAMP * 1000).astype(np.uint16)
    assert shown(tiff(dark, t280=0, t281=4095)).max() == 1000 * 256 // 4096
    assert shown(tiff(dark, t281=4095)).max() == 1000 * 256 // 4096
    assert shown(tiff(dark, t280=0, t281=65535)).max() == 255, "the whole range of the type states nothing"
    assert shown(tiff((RAMP * 0.25).astype(np.float32), t340=0.0, t341=0.5)).max() == round(0.5 * 255)
    assert shown(tiff(RAMP.astype(np.float32), t340=0.25, t341=0.75)).max() == 255
    assert (shown(tiff(RAMP.astype(np.float32), t340=0.25, t341=0.75))[RAMP < 0.25] == 0).all()
    assert decode_and_tell(tiff(dark, t281=4095))[1] == "the range that it states, 0 to 4095"


def test_samples_without_a_value_are_black_and_do_not_count():
    for hole in (np.nan, np.inf, -np.inf, -3.4028235e38):
        values = (RAMP + 1).astype(np.float32)
        values[:10] = hole
        pixels = shown(tiff(values))
        assert (pixels[:10] == 0).all() and pixels[10:].min() == 0 and pixels.max() == 255
    values = (RAMP * 10 + 100).astype(np.float32)
    values[:10] = -9999
    pixels = shown(tiff(values, t42113="-9999"))
    assert (pixels[:10] == 0).all() and pixels[10:].min() == 0 and len(np.unique(pixels)) > 200


def test_a_few_outliers_do_not_turn_the_picture_to_mud():
    values = (RAMP * 4095).astype(np.uint16)
    values[20, 30] = 65535
    values[5, 5] = 65535
    pixels = shown(tiff(values))
    assert np.abs(pixels - scaled(RAMP))[values != 65535].max() <= 2
    assert pixels[20, 30, 0] == 255


def test_white_is_zero_where_the_file_says_so():
    straight = tiff((RAMP * 4095).astype(np.uint16))
    assert np.array_equal(shown(tiff((RAMP * 4095).astype(np.uint16), t262=0)), 255 - shown(straight))


@pytest.mark.parametrize("values", [np.full((8, 8), np.nan, np.float32), np.full((8, 8), np.inf, np.float32)])
def test_a_file_without_a_finite_value_is_bad(values):
    with pytest.raises(BadImage, match="no sample has a finite value"):
        decode(tiff(values))


@pytest.mark.parametrize("value", [0, 7, 300, 65535])
def test_a_flat_picture_stays_flat(value):
    pixels = shown(tiff(np.full((8, 9), value, np.uint16)))
    assert (pixels == value >> 8).all()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([np.uint16, np.int32, np.float32]).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
    )
)
def test_any_values_keep_their_order(values):
    """Where one sample is greater than another, it is never shown darker; else there is a reason."""
    data = tiff(values)
    try:
        pixels = shown(data)[..., 0]
    except BadImage as error:
        assert str(error) == "no sample has a finite value"
        return
    known = np.abs(values.astype(np.float64)) < 1e30
    assert pixels.shape == values.shape and (pixels[~known] == 0).all()
    order = np.argsort(values[known], kind="stable")
    assert (np.diff(pixels[known][order].astype(int)) >= 0).all()
