#!/usr/bin/env bash
# Fine-tune MSRA's supervised ImageNet weights on COCO, Mask R-CNN C4 1x: the baseline.
# Run it or source it, from anywhere; arguments are passed on: source downstream/train_coco_base.sh SOLVER.MAX_ITER 100
(
    if [ -n "${BASH_VERSION-}" ]; then
        file=${BASH_SOURCE[0]}
    elif [ -n "${ZSH_VERSION-}" ]; then
        eval 'file=${(%):-%x}'
    else
        file=$0
    fi
    exec sh "$(dirname -- "$file")/finetune.sh" train_coco coco_c4_1x base "$@"
) || case $- in
    *e*i* | *i*e*) ;; # sourced by hand under `set -e`, a failure would close the shell
    *) (exit $?) ;;
esac
