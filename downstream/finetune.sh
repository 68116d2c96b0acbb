#!/bin/sh
# What the train_*.sh share: sh finetune.sh SCRIPT CONFIG WEIGHTS [arguments of train_voc.py or train_coco.py].
# SCRIPT is train_voc or train_coco, CONFIG a file in configs/, WEIGHTS the pre-training: base, pixpro or pixcontrast.
# Runs as a process of its own, so nothing here can reach the shell that called.
script=$1 config=$2 weights=$3
shift 3
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 2
file=$here/$weights.pkl
overlay=rgb
if [ "$weights" = base ]; then
    overlay=msra
    file=$here/R-50.pkl
    [ -f "$file" ] || file=detectron2://ImageNetPretrained/MSRA/R-50.pkl
fi

# The environment that install_packages.sh made, unless another one is active.
if [ -z "${VIRTUAL_ENV-}${CONDA_PREFIX-}" ] && [ -x "$here/../.venv/bin/python" ]; then
    python=$here/../.venv/bin/python
else
    python=$(command -v python || command -v python3) || {
        echo "error: no Python here: \`source install_packages.sh\` in the project's folder makes an environment" >&2
        exit 2
    }
fi

DETECTRON2_DATASETS=${DETECTRON2_DATASETS:-$here/datasets}
export DETECTRON2_DATASETS
exec "$python" "$here/$script.py" --config-file "$here/configs/$config.yaml" \
    --overlay "$here/configs/weights_$overlay.yaml" --weights "$file" --output-dir "$here/output/${config}_$weights" "$@"
