#!/bin/sh
# Trains models/mnist-cond in two stages: sh eval/recipes/mnist-cond.sh mnist RUN MODEL
# The runs are RUN and RUN-2. The same command continues an interrupted training.
set -eu
data=$1 run=$2 model=$3
recipe=$(dirname "$0")/mnist-cond.toml
train=${DCGAN_TRAIN:-dcgan-train}

if ! [ -e "$run/checkpoints/00028080" ]; then
    "$train" run --resume-if-exists --config "$recipe" --data "$data" --seed 1 --out "$run"
fi
# Without L2. The learning rate falls to zero twice, at steps 18,720 and 37,440.
if ! [ -e "$run-2.half" ]; then
    "$train" run --resume-if-exists --config "$recipe" --data "$data" --seed 2 --weight-decay 0 --steps 18720 \
        --init-from "$run/checkpoints/00028080" --out "$run-2"
    touch "$run-2.half"
fi
"$train" resume "$run-2" --steps 37440
"$train" import "$run-2/checkpoints/00037440" --network generator --dtype bf16 --out "$model"
