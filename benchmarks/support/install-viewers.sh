#!/usr/bin/env bash
# Installs what `make outside` shows meshes to, beside install-readers.sh: PrusaSlicer and Chromium (Debian packages),
# three.js (npm) and Blender as a Python module, in an environment of its own. Ends with 3, and a sentence, where it may
# not. Blender's module is 350 MB and needs Python 3.11.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
"$here/install-readers.sh"

missing() {
    command -v prusa-slicer >/dev/null || echo prusa-slicer
    command -v chromium >/dev/null || echo chromium
}

# shellcheck disable=SC2046
"$here/install-packages.sh" $(missing)
if [ ! -d "$root/build/readers/node_modules/three" ]; then
    npm install --silent --no-save --no-audit --no-fund --prefix "$root/build/readers" \
        gltf-validator@2.0.0-dev.3.10 meshoptimizer@1.3.0 three@0.187.0 >&2 ||
        { echo "Missing on this machine: the npm package three, and no registry to fetch it from." >&2; exit 3; }
fi
blender=$root/build/blender
if [ ! -x "$blender/bin/python" ] || ! "$blender/bin/python" -c 'import bpy' 2>/dev/null; then
    python3.11 -m venv "$blender" >&2 ||
        { echo "Missing on this machine: Python 3.11 with its venv, which Blender's module bpy 4.2 is for." >&2; exit 3; }
    "$blender/bin/pip" install --quiet "bpy==4.2.*" >&2 ||
        { echo "Missing on this machine: bpy 4.2, and no index to fetch it from." >&2; exit 3; }
    "$blender/bin/python" -c 'import bpy' >&2 ||
        { echo "Missing on this machine: what Blender's module needs of the system; see above." >&2; exit 3; }
fi
