#!/usr/bin/env bash
# What only a GPU can show, each step with a time limit and a log of its own under OUT.
#   benchmarks/gpu_session.sh OUT [full|tiny] [STEP ...]     steps: kernels variants stages decode memory start busy acceleration
set -u
out=${1:?folder for logs}; form=${2:-full}; shift; [ $# -gt 0 ] && shift
steps=${*:-kernels variants stages decode memory start busy}
mkdir -p "$out"
cache=${TMPDIR:-/tmp}/orfeas-compiled
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$cache/inductor TRITON_CACHE_DIR=$cache/triton
slow=1; [ "$form" = full ] || slow=15
step() {
  local name=$1 seconds=$(($2 * slow)); shift 2
  [[ " $steps " == *" $name "* ]] || return 0
  echo "== $name ($(date +%T), at most $seconds s)"
  timeout -k 10 "$seconds" "$@" >"$out/$name.log" 2>&1
  echo "   exit $?; $(grep -cE 'FAILED|SKIPPED|Traceback' "$out/$name.log") lines to look at"
  grep -E "FULL|FAILED|SKIPPED|Error|\| |do not work|does not work" "$out/$name.log" | tail -n 60
}
full_size="python3 -m benchmarks.full_size $form --out $out --cache $cache"
step kernels 30 python3 -m benchmarks.gpu_kernels
# Several words, each an argument.
# shellcheck disable=SC2086
step variants 95 $full_size --only variants --seconds $((90 * slow)) --design 2.1 2.0
# shellcheck disable=SC2086
step stages 100 $full_size --only stages --seconds $((95 * slow))
[ -f benchmarks/decode_stages.py ] && step decode 60 python3 -m benchmarks.decode_stages "$form" --out "$out"
step memory 120 python3 -m benchmarks.memory_limits "$form" --out "$out" --gigabytes 8 12 16 24 --offload off auto --side-by-side
step start 75 python3 -m benchmarks.memory_limits "$form" --out "$out" --limits 0.8 --compile on --repeat 2
design=tiny; [ "$form" = full ] && design="mini turbo"
device=cpu; python3 -c "import torch, sys; sys.exit(not torch.cuda.is_available())" && device=cuda
step busy 170 python3 -m benchmarks.device_busy --device $device --design "$design" --out "$out/device_busy.md"
# The demo checkpoint, 200 shapes: make the held-out ones first (training.make_data) and give their folder in HELD_OUT.
[ -n "${HELD_OUT:-}" ] && step acceleration 240 python3 -m benchmarks.acceleration --held-out "$HELD_OUT" --batch 25 --others 25 \
  --work "$out/acceleration.jsonl" --out "$out/acceleration.md" --curve "$out/acceleration.png"
exit 0
