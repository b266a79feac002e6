"""What a mesh made in company may differ by from the one made alone.

Nothing, where that was looked at: on processors up to AVX2, as on an H100. Matrix products of wider instructions may
sum a few rows in another order than many.
"""

from __future__ import annotations

import torch

IN_COMPANY = 0.0 if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") else 1e-4
"""The most that latents, and vertices in world units, may differ by."""
