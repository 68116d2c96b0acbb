#!/usr/bin/env bash
# Fine-tune PixPro weights (downstream/pixpro.pkl) on COCO, Mask R-CNN FPN 1x.
# Run it or source it, from anywhere; arguments are passed on: source downstream/train_coco_fpn_pixpro.sh SOLVER.MAX_ITER 100
(
    if [ -n "${BASH_VERSION-}" ]; then
        file=${BASH_SOURCE[0]}
    elif [ -n "${ZSH_VERSION-}" ]; then
        eval 'file=${(%):-%x}'
    else
        file=$0
    fi
    exec sh "$(dirname -- "$file")/finetune.sh" train_coco coco_fpn_1x pixpro "$@"
) || case $- in
    *e*i* | *i*e*) ;; # sourced by hand under `set -e`, a failure would close the shell
    *) (exit $?) ;;
esac
