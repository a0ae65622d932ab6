#!/bin/sh
# What has to be seen on a machine with an NVIDIA GPU, in ten minutes: results, bytes, speed. The table comes last.
#
# Run: eval/gpu/check.sh [OUT]          in the root folder of the repository; OUT takes the logs (default: a new folder)
#
# BIN      folder of dcgan-train and dcgan-data (default target/release); they need no CUDA to build, so another machine
#          may build them
# GOLDENS  the program of this repository's tests, `target/debug/deps/it-...` of the package dcgan-tests; without it, no
#          golden values are compared
# DEVICE   default cuda:0
# PYTHON   default python3; with torch, its cuDNN is used and its training steps are timed
# QUICK=1  small shapes and few steps: the dry run on the simulated GPU of crates/dcgan-ops/tests/simulated_gpu
#
# A step that fails does not end the others; the script ends with 1 if one did.
set -u
BIN=${BIN:-target/release}
DEVICE=${DEVICE:-cuda:0}
PYTHON=${PYTHON:-python3}
export BIN DEVICE PYTHON

train() {
    "$BIN/dcgan-train" run --quiet --preset digits --device "$DEVICE" --steps 200 --checkpoint-every 100 \
        --sample-every 200 --seed 5 --out "$1"
}
# The script calls itself for steps of several commands.
case ${1:-} in
--train)
    train "$2"
    exit
    ;;
--killed)
    train "$2" &
    pid=$!
    while [ ! -d "$2/checkpoints/00000100" ] && kill -0 $pid; do sleep 0.1; done
    kill -9 $pid
    wait $pid
    "$BIN/dcgan-train" resume "$2" --quiet
    exit
    ;;
--data)
    # 20,000 random images in CIFAR-10's format, then as a cache of the size asked for.
    mkdir -p "$2"
    "$PYTHON" -c "
import os, sys
for i in (1, 2):
    with open(f'{sys.argv[1]}/data_batch_{i}.bin', 'wb') as file:
        file.write(b''.join(bytes([k % 10]) + os.urandom(3072) for k in range(10000)))
" "$2" && "$BIN/dcgan-data" pack --size "$3" --out "$2/cache-$3" "$2"
    exit
    ;;
--long)
    "$BIN/dcgan-train" run --quiet --preset "$4" --data "$3" --device "$DEVICE" --dtype bf16 --batch-size 128 \
        --steps "$5" --log-every $(($5 / 2)) --sample-every 1000000 --checkpoint-every 1000000 --out "$2" || exit 1
    # Of the second half: the first one reads every image and captures the work.
    grep '"images_per_s"' "$2/stats.jsonl" | tail -n 1
    exit
    ;;
--same)
    diff -r "$2/checkpoints" "$3/checkpoints" && echo "checkpoints are equal"
    exit
    ;;
esac

OUT=${1:-$(mktemp -d)}
mkdir -p "$OUT"
TABLE=$OUT/table.txt
: >"$TABLE"
failed=0

note() { printf '%s\n' "$*" | tee -a "$TABLE"; }

# step NAME SECONDS COMMAND...: runs it with its own limit and log; the last line of its output goes to the table.
step() {
    name=$1
    seconds=$2
    shift 2
    if timeout "$seconds" "$@" >"$OUT/$name.log" 2>&1; then
        note "ok      $name: $(tail -n 1 "$OUT/$name.log")"
    else
        failed=1
        note "FAILED  $name: $(tail -n 1 "$OUT/$name.log")"
    fi
}

if [ "${QUICK:-0}" = 1 ]; then
    presets="digits mnist-cond" verify=6 limit=600 plans=2 timed=""
else
    presets="digits pytorch32 pytorch64 paper64 svhn32 imagenet32 mnist-cond" verify=16 limit=120 plans=128 timed="pytorch64 pytorch32"
fi

# cuDNN of a torch in this Python, where none is installed.
site=$("$PYTHON" -c 'import nvidia.cudnn, os; print(os.path.dirname(nvidia.cudnn.__path__[0]))' 2>/dev/null)
if [ -n "$site" ]; then
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(printf '%s:' "$site"/*/lib)
    export LD_LIBRARY_PATH
fi

command -v nvidia-smi >/dev/null && note "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)"
note "$("$BIN/dcgan-train" --version)"

# Operations and training steps: both networks of every preset against the CPU in f32, twice with equal bytes, with a
# fresh seed.
seed=$(date +%s)
for preset in $presets; do
    for dtype in f32 bf16; do
        step "verify-$preset-$dtype" "$limit" "$BIN/dcgan-train" bench --verify --preset "$preset" --dtype "$dtype" \
            --batch-size "$verify" --device "$DEVICE" --seed "$seed"
    done
done

# Layers, networks and ten training steps against PyTorch's golden values.
if [ -n "${GOLDENS:-}" ]; then
    step goldens 300 env SIMULATED_GPU=1 DCGAN_GOLDEN="$PWD/tests/golden" "$GOLDENS" goldens:: --skip on_a_simulated_gpu
else
    note "skipped goldens: GOLDENS is not set"
fi

# The convolutions' engines with their TFLOP/s; the log has the table.
for preset in ${timed:-digits}; do
    step "plans-$preset" 120 "$BIN/dcgan-train" bench --explain --preset "$preset" --dtype bf16 \
        --batch-size "$plans" --steps 32 --device "$DEVICE"
done

# A run: the same bytes twice, and across a kill and resume.
if [ "${QUICK:-0}" != 1 ]; then
    step run 120 "$0" --train "$OUT/run"
    step run-again 120 "$0" --train "$OUT/again"
    step run-killed 120 "$0" --killed "$OUT/killed"
    step same-bytes 20 "$0" --same "$OUT/run" "$OUT/again"
    step same-bytes-after-kill 20 "$0" --same "$OUT/run" "$OUT/killed"
fi

# Memory faults and races in the kernels, on small shapes.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        step "$tool" 180 compute-sanitizer --tool "$tool" --error-exitcode 9 "$BIN/dcgan-train" bench --verify \
            --preset digits --batch-size 2 --device "$DEVICE"
    done
else
    note "skipped compute-sanitizer: not installed"
fi

# Speed: ours and PyTorch's alternately on the same card; images/s by the median step. Ours has images and z on the
# host, PyTorch's on the GPU.
rate() { sed -n 's/.*"images_per_s": *\([0-9.]*\).*/\1/p' "$1" | tail -n 1; }
for preset in $timed; do
    for size in 128 1024; do
        for round in 1 2; do
            step "ours-$preset-$size-$round" 60 "$BIN/dcgan-train" bench --json --preset "$preset" --dtype bf16 \
                --batch-size "$size" --steps 320 --device "$DEVICE"
            step "torch-$preset-$size-$round" 120 "$PYTHON" eval/bench/pytorch_step.py --preset "$preset" --bf16 \
                --channels-last --compile --skip-d-grads --batch-size "$size" --steps 320 --device cuda
            ours=$(rate "$OUT/ours-$preset-$size-$round.log")
            torch=$(rate "$OUT/torch-$preset-$size-$round.log")
            [ -n "$ours" ] && [ -n "$torch" ] && note "ratio   $preset batch $size round $round: ours $ours, PyTorch $torch," \
                "$(echo "$ours $torch" | awk '{ printf "%.2f", $1 / $2 }')"
        done
    done
done

# A whole run beside the benchmark: data, logs and all, within 5 %.
for preset in $timed; do
    side=${preset#pytorch}
    step "data-$side" 120 "$0" --data "$OUT/data-$side" "$side"
    step "run-$preset" 120 "$0" --long "$OUT/run-$preset" "$OUT/data-$side/cache-$side" "$preset" "${long:-2000}"
    run=$(rate "$OUT/run-$preset.log")
    bench=$(rate "$OUT/ours-$preset-128-2.log")
    [ -n "$run" ] && [ -n "$bench" ] && note "ratio   $preset batch 128: run $run, bench $bench," \
        "$(echo "$run $bench" | awk '{ printf "%.3f", $1 / $2 }')"
done

echo "---- $OUT"
cat "$TABLE"
exit $failed
