#!/bin/sh
# install-python.sh VENV REQUIREMENTS...: makes the virtual environment and installs the pinned packages into it.
#
# PyPI's own torch wheel for Linux is the CUDA build (2.13.0 is built for CUDA 13.0 and brings its libraries), so no other
# index is named. A mirror that holds only the CPU build would go unnoticed until the first request, so it ends the build.
set -eu

venv=$1
shift
python3 -m venv "$venv"
for requirements in "$@"; do
    "$venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -r "$requirements"
done

cuda=$("$venv/bin/python" -c 'import torch.version; print(torch.version.cuda or "")')
if [ -z "$cuda" ]; then
    echo "The torch that was installed cannot use a GPU: install it from PyPI, or from an index with its CUDA build." >&2
    exit 1
fi
echo "torch is built for CUDA $cuda"
