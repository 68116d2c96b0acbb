#!/usr/bin/env bash
# Fine-tune PixContrast weights (downstream/pixcontrast.pkl) on VOC 07+12.
# Run it or source it, from anywhere; arguments are passed on: source downstream/train_voc_pixcontrast.sh SOLVER.MAX_ITER 100
(
    if [ -n "${BASH_VERSION-}" ]; then
        file=${BASH_SOURCE[0]}
    elif [ -n "${ZSH_VERSION-}" ]; then
        eval 'file=${(%):-%x}'
    else
        file=$0
    fi
    exec sh "$(dirname -- "$file")/finetune.sh" train_voc voc_c4_24k pixcontrast "$@"
) || case $- in
    *e*i* | *i*e*) ;; # sourced by hand under `set -e`, a failure would close the shell
    *) (exit $?) ;;
esac
