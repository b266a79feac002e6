#!/usr/bin/env bash
# Installs the programs that read our meshes in the tests: assimp, admesh and node (Debian packages), and, under
# build/readers, gltf-validator and meshoptimizer's decoder (npm). Ends with 3, and a sentence, where it may not.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
readers=$(cd "$here/../.." && pwd)/build/readers

missing() {
    command -v assimp >/dev/null || echo assimp-utils
    command -v admesh >/dev/null || echo admesh
    command -v npm >/dev/null || { command -v node >/dev/null || echo nodejs; echo npm; }
}

# shellcheck disable=SC2046
"$here/install-packages.sh" $(missing)
[ -d "$readers/node_modules/meshoptimizer" ] && exit 0
mkdir -p "$readers"
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>"$readers/.lock"
flock 9
[ -d "$readers/node_modules/meshoptimizer" ] && exit 0
if ! npm install --silent --no-save --no-audit --no-fund --prefix "$readers" \
    gltf-validator@2.0.0-dev.3.10 meshoptimizer@1.3.0 >&2; then
    echo "Missing on this machine: the npm packages gltf-validator and meshoptimizer, and no registry to fetch them from." >&2
    exit 3
fi
