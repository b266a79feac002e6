#!/bin/sh
# What the image takes from its Linux distribution. The NVIDIA driver comes from the host, CUDA's libraries with torch.
set -eu

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-venv
rm -rf "${APT_LISTS:-/var/lib/apt/lists}"/*
