#!/bin/sh
# Trains models/bedrooms64 in two stages: sh eval/recipes/bedrooms64.sh bedrooms-64.zip RUN MODEL
# The same command continues an interrupted training.
set -eu
data=$1 run=$2 model=$3
recipe=$(dirname "$0")/bedrooms64.toml
train=${DCGAN_TRAIN:-dcgan-train}

# 80 epochs. The learning rate falls to zero.
if ! [ -e "$run.first" ]; then
    "$train" run --resume-if-exists --config "$recipe" --data "$data" --dtype bf16 --seed 1 --checkpoint-every 500 \
        --keep 40 --out "$run"
    touch "$run.first"
fi
# 200 epochs, with the learning rate of this length.
"$train" resume "$run" --steps 15600
"$train" import "$run/checkpoints/00012000" --network generator --dtype bf16 --out "$model"
