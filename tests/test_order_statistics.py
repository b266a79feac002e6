"""Medians and quantiles are numpy's own, whatever the number, type and layout of the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.hunyuan3d.image.order_statistics import channel_medians, median, quantile

COUNTS = (1, 2, 3, 4, 5, 100, 101, 4097)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_they_are_numpys(count: int, kind: type[np.floating[Any]]) -> None:
    random = np.random.default_rng(count)
    for values in (random.normal(size=count), random.integers(0, 3, count)):
        some = values.astype(kind)
        before = some.copy()
        assert median(some) == float(np.median(some))
        for share in (0.0, 0.1, 0.5, 0.97, 1.0):
            assert quantile(some, share) == pytest.approx(float(np.quantile(some, share)), rel=1e-6)
        assert np.array_equal(some, before)


def test_channels_have_their_own_with_their_type() -> None:
    random = np.random.default_rng(3)
    pixels = random.normal(size=(21, 34, 3)).astype(np.float32)
    where = random.random((21, 34)) < 0.3
    every, some = channel_medians(pixels), channel_medians(pixels, where)
    assert every.dtype == some.dtype == np.dtype(np.float32)
    assert np.array_equal(every, np.median(pixels, axis=(0, 1)))
    assert np.array_equal(some, np.median(pixels[where], axis=0))
    assert np.array_equal(channel_medians(pixels[:, ::-1]), every)
