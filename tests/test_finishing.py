"""The mesh that is drawn before any picture came."""

from __future__ import annotations

import numpy as np

from backend.hunyuan3d.finishing import draw_ball


def test_the_ball_is_one() -> None:
    ball = draw_ball()
    assert ball.is_watertight
    np.testing.assert_allclose(np.linalg.norm(ball.vertices, axis=1), 0.5, atol=0.02)
