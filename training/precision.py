"""The precision that training computes in: half where the device has products for it, else single.

Knows devices only. Weights and what leaves the networks are single either way.
"""

from __future__ import annotations

import torch


def halved(device: str) -> torch.autocast:
    """Return autocast to bfloat16; it does nothing on processors without bf16 products, which it slows ten times."""
    fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast)
