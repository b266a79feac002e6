"""Which part of a card's memory a full-size 2.1 checkpoint needs: loaded in a fresh process for each limit.

    python -m benchmarks.memory_limits full --out outputs/full_size --gigabytes 8 12 16 24 --offload off auto

Writes a checkpoint of random weights in the released layout, then loads it through `get_3d_processor` once for each
GPU_MEMORY_LIMIT and says seconds, peak while loading, costs and capacity. With --side-by-side the rehearsal of a job
is left out and four run at once: what fits stays true, seconds do not. --gigabytes are cards of so many 10^9 bytes, of
which 0.5 are the driver's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import torch

from backend.hunyuan3d.checkpoint.load import Checkpoint, save_checkpoint
from benchmarks.full_size import device_and_dtype, random_pipeline

_DRIVER = 0.5
_SIDE_BY_SIDE = 4
_ONE = """
import os, resource, time
started = time.perf_counter()
import torch
from backend.config import Settings
import backend.hunyuan_integration as integration
from backend.hunyuan_integration import get_3d_processor
from backend.hunyuan3d.networks.shape_vae import ShapeVAE
from benchmarks.full_size import DisguisedField
# Random weights have surface in every cell, which no real model has: their field does its work, then is a shape's.
field = ShapeVAE.field
ShapeVAE.field = lambda self, *args, **options: DisguisedField(field(self, *args, **options))
if not {rehearsed}:
    integration.rehearse = lambda *_: []
imported = time.perf_counter() - started
settings = Settings(model_path={folder!r}, gpu_memory_limit={limit}, torch_compile={compile!r}, dtype={dtype!r},
                    offload={offload!r}, max_batch_size=8)
try:
    processor = get_3d_processor(settings)
    gib = 2**30
    ready = time.perf_counter() - started
    cuda = torch.cuda.is_available()
    peak, held = (torch.cuda.max_memory_reserved() / gib, torch.cuda.memory_allocated() / gib) if cuda else (0, 0)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    offloaded = len(processor.pipeline.offloading)
    print(f"FULL limit {limit} {dtype} compile {compile} offload {offload} ({{offloaded}} networks):",
          f"imports {{imported:.1f}} s, ready after {{ready:.1f}} s;",
          f"weights {{held:.2f}} GiB, peak {{peak:.2f}} GiB, host {{host:.1f}} GiB; costs {{processor.sizer.costs}};",
          f"capacity at 384: {{processor.batch_capacity(384)}}")
    waiting = time.perf_counter()
    while {compile!r} == "on" and not getattr(processor, "compiled", True) and time.perf_counter() - waiting < 60:
        time.sleep(0.1)
    print(f"FULL limit {limit}: compiled {{getattr(processor, 'compiled', None)}} after "
          f"{{time.perf_counter() - started:.1f}} s")
except Exception as failure:
    print(f"FAILED limit {limit} offload {offload}:", type(failure).__name__, str(failure)[:300])
os._exit(0)
"""


def main() -> None:
    """Write the checkpoint, then try every limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=("full", "tiny"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limits", nargs="+", type=float, default=[0.16, 0.125])
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--gigabytes", nargs="+", type=float, help="in place of --limits: cards of this size")
    parser.add_argument("--offload", nargs="+", choices=("auto", "on", "off"), default=["auto"])
    parser.add_argument("--side-by-side", action="store_true")
    parser.add_argument("--repeat", type=int, default=1, help="times each is started")
    arguments = parser.parse_args()
    device, dtype = device_and_dtype()
    folder = Path(tempfile.mkdtemp(prefix="orfeas-2.1-"))
    try:
        started = time.perf_counter()
        pipeline = random_pipeline("2.1" if arguments.form == "full" else "tiny", device, dtype)
        checkpoint = Checkpoint("random", pipeline.config, pipeline.denoiser, pipeline.shape_vae, pipeline.conditioner)  # type: ignore[arg-type]
        save_checkpoint(folder, checkpoint)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
        print(f"FULL checkpoint of {size:.2f} GiB written in {time.perf_counter() - started:.1f} s", flush=True)
        del pipeline, checkpoint
        if device.type == "cuda":
            torch.cuda.empty_cache()
        limits = arguments.limits
        if arguments.gigabytes:
            limits = [_limit_of(gigabytes, device) for gigabytes in arguments.gigabytes]
        tries = [each for each in product(limits, arguments.offload) for _ in range(arguments.repeat)]
        with ThreadPoolExecutor(_SIDE_BY_SIDE if arguments.side_by_side else 1) as pool:
            rehearsed = not arguments.side_by_side
            attempt = partial(_try, folder, compile_=arguments.compile, dtype=arguments.dtype, rehearsed=rehearsed)
            list(pool.map(lambda each: attempt(limit=each[0], offload=each[1]), tries))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _limit_of(gigabytes: float, device: torch.device) -> float:
    """Return the GPU_MEMORY_LIMIT that makes this card one of so many gigabytes."""
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 80e9
    return round((gigabytes - _DRIVER) * 1e9 / total, 4)


def _try(folder: Path, limit: float, compile_: str, dtype: str, offload: str, *, rehearsed: bool) -> None:
    code = _ONE.format(
        folder=str(folder), limit=limit, compile=compile_, dtype=dtype, offload=offload, rehearsed=rehearsed
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)  # noqa: S603
    except subprocess.TimeoutExpired:
        print(f"FAILED limit {limit} offload {offload}: not ready after two minutes", flush=True)
    else:
        print(done.stdout.strip() or f"FAILED limit {limit} offload {offload}: {done.stderr[-600:]}", flush=True)


if __name__ == "__main__":
    main()
