#!/usr/bin/env bash
# All that should be known from the first hours on a GPU, as JSON: each part takes less than nine minutes.
#
#   bash benchmarks/first_gpu.sh                      every part, one after the other
#   bash benchmarks/first_gpu.sh tests waits          some of them: tests waits runs step largest data ranks
#   OUT=folder PEAK_TFLOPS=800 bash benchmarks/first_gpu.sh step
#
# Rows go to $OUT/results.jsonl (benchmarks/gpu/line.py says what is in one), outputs beside it. A line that fails, takes
# too long or lacks a second GPU becomes a row that says so, and the next one runs. PEAK_TFLOPS: what the GPU computes in
# bf16, for the share of the roofline; the default is that of one H100 (measured with large matrix products).
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
OUT=${OUT:-output/first_gpu}
PEAK_TFLOPS=${PEAK_TFLOPS:-800}
ALL=(tests waits runs step largest data ranks)
part="" ends=0 needs=1

begin() { # NAME: a part, and its time
    part=$1
    ends=$(($(date +%s) + 530))
}

line() { # NAME COMMAND...: one measurement; $needs says how many GPUs it takes
    python benchmarks/gpu/line.py --out "$OUT" --part "$part" --until "$ends" --needs "$needs" "$1" -- "${@:2}"
}

train() { # NAME SETTINGS...: 40 steps of train.py after 20, ResNet-50, 128 images, drawn photographs
    line "$1" python benchmarks/train.py --ranks "$needs" --steps 40 --warmup 20 --log_every 20 --repeats 1 \
        --extra="${*:2}" --json "{json}"
}

run_tests() {
    line suite python -m pytest -m gpu -n 0 -q
}

run_waits() {
    local model
    for model in pixpro pixcontrast instance fpn; do
        line "$model" python benchmarks/gpu/waits.py --model "$model" --amp bf16 --json "{json}"
    done
    line pixpro_float32 python benchmarks/gpu/waits.py --amp off --images 16 --json "{json}"
}

run_runs() {
    train bf16 --amp bf16
    train fp16 --amp fp16
    train compile --amp bf16 --compile
    train deterministic --amp bf16 --deterministic
    train decode_gpu --amp bf16 --decode gpu
}

run_step() {
    local step=(python benchmarks/step.py --device cuda --archs resnet50 --rounds 10 --json "{json}")
    line ours "${step[@]}" --batch_sizes 128 --only ours compiled compiled_together compiled_graphs floor_encoder \
        --profile --peak_tflops "$PEAK_TFLOPS"
    line peers "${step[@]}" --batch_sizes 128 --only ours official official_same lucidrains densecl floor floor_encoder
    line together "${step[@]}" --batch_sizes 32 128 --only ours together compiled compiled_together
    line parts python benchmarks/steps/parts.py --device cuda --arch resnet50 --batch_size 128 --rounds 20
}

run_largest() {
    line largest python benchmarks/step.py --device cuda --archs resnet50 --batch_sizes 128 --largest --rounds 5 \
        --only ours compiled official --json "{json}"
    line plan python train.py --plan --data "$OUT/photos" --batch_size 1024 --epochs 100
}

run_data() {
    line colours_and_decoding python benchmarks/data.py --images 192 --names 0 --json "{json}"
    train decode_cpu --amp bf16 --decode cpu
    train decode_gpu --amp bf16 --decode gpu
    line health python benchmarks/monitor/health.py --arch resnet50 --image_size 224 --batch_size 128 --hidden_dim 4096
}

run_ranks() {
    needs=2
    train two --amp bf16
    train two_compiled --amp bf16 --compile
    line killed python benchmarks/gpu/killed.py --json "{json}"
    needs=1
}

[ $# -gt 0 ] || set -- "${ALL[@]}"
for name in "$@"; do
    case " ${ALL[*]} " in
        *" $name "*) ;;
        *) echo "first_gpu.sh: no part \"$name\"; there are: ${ALL[*]}" >&2; exit 2 ;;
    esac
done
mkdir -p "$OUT" || exit 1
[ -d "$OUT/photos" ] || python -c "
from pathlib import Path; import sys; sys.path.insert(0, '.')
from benchmarks.pipeline import photos; photos.write(Path(sys.argv[1]), 64)" "$OUT/photos"
for name in "$@"; do
    begin "$name"
    "run_$name"
done
echo "rows in $OUT/results.jsonl"
