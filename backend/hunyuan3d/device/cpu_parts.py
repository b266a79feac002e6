"""Parts of one computation on a CPU, side by side: a thread for each core, and one core for each of torch's calls.

torch itself spreads every single call over all cores and waits for the slowest after each. Where another program has a
core as well, a call waits for that program's turn to end: decoding then took ten times as long as this way
(benchmarks/results/cpu_parts.md). This module does not know what is computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


def side_by_side(function: Callable[[Tensor], Tensor], parts: Iterable[Tensor]) -> list[Tensor]:
    """Return what `function` makes of each part, in order, on as many threads as torch has for a call.

    function : any thread may call it; each call has one of torch's threads. What it raises comes out.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [function(part) for part in parts]
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def on_its_own(part: Tensor) -> Tensor:
        # Both are the thread's own, and this one's are not those of whoever asked.
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return function(part)

    with _one_thread_a_call(threads):
        return list(_pool(os.getpid(), threads).map(on_its_own, parts))


@contextmanager
def _one_thread_a_call(threads: int) -> Iterator[None]:
    """Have each call of torch run on its thread alone, the libraries' below it, too; `threads` again afterwards."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process: one that was forked has none of its parent's."""
    return ThreadPoolExecutor(
        threads, thread_name_prefix=f"parts-{process}", initializer=torch.set_num_threads, initargs=(1,)
    )
