"""rembg as the cutter, where it is installed and its model lies on this machine already.

rembg fetches a model of hundreds of megabytes when it is first asked, and its default one is not free for every use.
Neither happens here: only a model that someone has put into rembg's folder (its own REMBG_HOME) is used, and only one
of those under a free licence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from threading import Lock

from PIL import Image

Cutter = Callable[[Image.Image], Image.Image]
"""Gives the mask of the object in an RGB image: mode L, of the same size, 255 where the object is."""

MODELS = ("birefnet-general", "birefnet-general-lite", "isnet-general-use", "u2net", "silueta", "u2netp")
"""The models that may be used, the better ones first."""

_LOADING = Lock()


def installed_cutter() -> Cutter | None:
    """Return rembg with the best model that is there; None without one, without rembg, or without its runtime.

    Importing it and reading the model takes seconds; it is done once, however many threads ask at a time. Of a model
    that cannot be read, the cutter raises what reading it raised.
    """
    with _LOADING:
        return _loaded()


def installed_model() -> str | None:
    """Return the name of the model that is used; None without one, without rembg, or without its runtime."""
    if find_spec("rembg") is None:
        return None
    try:
        sessions = import_module("rembg.sessions").sessions
    except (ImportError, SystemExit):  # rembg exits the interpreter when onnxruntime is missing
        return None
    return next((name for name in MODELS if sessions[name].resolve_existing(f"{name}.onnx")), None)


@cache
def _loaded() -> Cutter | None:
    model = installed_model()
    if model is None:
        return None
    rembg = import_module("rembg")
    try:
        session = rembg.new_session(model)
    except Exception as e:  # noqa: BLE001 - a download that broke off, say; said of every picture, read no more
        return partial(_unreadable, e)
    # Its cut-outs have black mixed into their edges: the mask alone is asked for.
    return partial(rembg.remove, session=session, only_mask=True)


def _unreadable(error: Exception, _: Image.Image) -> Image.Image:
    raise error.with_traceback(None)
