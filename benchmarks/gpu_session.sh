#!/usr/bin/env bash
# Everything that only a GPU can show, in order, each step with a time limit and a log of its own under $1.
#   benchmarks/gpu_session.sh OUT [full|tiny]
set -u
out=${1:?folder for logs}; form=${2:-full}
mkdir -p "$out"
export PYTHONUNBUFFERED=1
step() {
  local name=$1 seconds=$2; shift 2
  echo "== $name ($(date +%T), at most $seconds s)"
  timeout -k 10 "$seconds" "$@" >"$out/$name.log" 2>&1
  echo "   exit $?; $(grep -cE 'FAILED|SKIPPED|Traceback' "$out/$name.log") lines to look at"
  grep -E "FULL|FAILED|SKIPPED|Error|\| " "$out/$name.log" | tail -n 60
}
step imports 60 python3 -c "
import importlib, time
for name in 'torch triton diffusers transformers numpy safetensors yaml trimesh PIL cv2 scipy huggingface_hub pydantic'.split():
    t = time.perf_counter()
    try: m = importlib.import_module(name); print('FULL', name, getattr(m, '__version__', ''), f'{time.perf_counter() - t:.1f}s')
    except Exception as e: print('FAILED', name, type(e).__name__, e)
"
variants=290; stages=110
[ "$form" = full ] || variants=1200 stages=600
step kernels 40 python3 -m benchmarks.gpu_kernels
step variants "$((variants + 10))" python3 -m benchmarks.full_size "$form" --out "$out" --only variants --seconds "$variants"
step stages "$((stages + 10))" python3 -m benchmarks.full_size "$form" --out "$out" --only stages --seconds "$stages"
[ -f benchmarks/decode_variants.py ] && step decode 100 python3 -m benchmarks.decode_variants "$form" --out "$out"
step memory 100 python3 -m benchmarks.memory_limits "$form" --out "$out"
tar -czf "$out/logs.tgz" -C "$out" $(cd "$out" && ls | grep -E '\.(log|txt|json|md)$')
exit 0
