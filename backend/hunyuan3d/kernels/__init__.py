"""Kernels written by hand for what the compiler does not fuse; each stands beside the same computation in torch."""
