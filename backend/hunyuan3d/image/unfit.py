"""Why a file of a known format is not read. This module does not know who looks, or who is told."""

from __future__ import annotations


class UnfitFile(ValueError):
    """Says in a few words what is wrong with a file, as "its header is damaged"."""
