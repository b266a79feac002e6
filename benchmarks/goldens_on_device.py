"""The golden checkpoints on this machine's device: how far each stage is from the reference's float32 numbers.

    python -m benchmarks.goldens_on_device

The suite holds the CPU to 1e-4; this shows what a GPU makes of the same numbers, in float32 and in bf16, eager and
with compiled blocks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backend.hunyuan3d.device.compile import CompiledPieces
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline

STAGES = ("cond", "velocity", "latents", "decoded", "query logits")


def differences(folder: Path, device: torch.device, dtype: str, *, compiled: bool) -> list[float]:
    """Return each stage's largest absolute difference to the reference, every stage fed with the reference's input."""
    with np.load(folder / "golden.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    meta = json.loads((folder / "meta.json").read_text())
    pipeline = Hunyuan3DShapePipeline.from_pretrained(folder, device=device, dtype=dtype)
    if compiled:
        assert isinstance(pipeline.denoiser, nn.Module)
        CompiledPieces([pipeline.denoiser, pipeline.shape_vae]).use()
    views = (0, 1, 2) if golden["image"].dim() == 5 else None
    guidance = meta["guidance_scale"]
    cond, noise, tokens = (golden[name].to(device) for name in ("cond", "noise", "decoded"))
    classifier_free = not pipeline.denoiser.guidance_embed
    with torch.no_grad():
        context = pipeline.denoiser.prepare(cond.to(pipeline.dtype), classifier_free=classifier_free)
        scale = torch.tensor([guidance], device=device)
        velocity = pipeline.denoiser.velocity(noise, golden["model_t"][0, 0].to(device), context, scale)
        found: list[tuple[Tensor, Tensor]] = [
            (pipeline.encode_images(golden["image"], views), golden["cond"]),
            (velocity, golden["velocity"][0]),
            (pipeline.sample_latents(cond, meta["num_inference_steps"], guidance, noise=noise), golden["latents"]),
            (pipeline.shape_vae.decode(golden["latents"].to(device)), golden["decoded"]),
            (
                pipeline.shape_vae.query(tokens.to(pipeline.dtype), golden["queries"].to(device)),
                golden["query_logits"][..., 0],
            ),
        ]
    return [float((mine.float().cpu() - expected).abs().max()) for mine, expected in found]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=Path(__file__).parents[1] / "tests" / "golden")
    folder: Path = parser.parse_args().golden
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"| checkpoint | dtype | {' | '.join(STAGES)} |\n|---|---|{'---|' * len(STAGES)}")
    for meta in sorted(folder.glob("*/meta.json")):
        for dtype, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
            row = differences(meta.parent, device, dtype, compiled=compiled)
            kind = f"{dtype}, compiled" if compiled else dtype
            print(f"| {meta.parent.name} | {kind} | {' | '.join(f'{value:.1e}' for value in row)} |", flush=True)


if __name__ == "__main__":
    main()
