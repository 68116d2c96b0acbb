#!/bin/bash
# Pre-train under SLURM; stopped or preempted jobs put themselves back into the queue and go on where they were.
#
#   sbatch slurm/pretrain.sh --data /data/imagenet/train --output_dir output/imagenet
#
# Arguments go to train.py. Submit from the repository's folder, after `bash install_packages.sh`.
#SBATCH --job-name=pixpro
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8        # one task per GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue                  # after the failure of a node, SLURM itself does it
#SBATCH --open-mode=append
#SBATCH --signal=USR1@180          # to the tasks, three minutes before the time is up: train.py saves and exits with 75
#SBATCH --output=%x-%j.log

cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}" || exit 1
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$SLURM_NTASKS
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # since SLURM 22.05 srun does not take --cpus-per-task from the job

# This shell outlives its tasks, so that it can put the job back; unless the job was cancelled or preempted (SIGTERM:
# after a preemption SLURM puts it back itself).
cancelled=no
trap : USR1
trap 'cancelled=yes' TERM

# exec: the signals are train.py's. --kill-on-bad-exit: a lost task ends the others.
# shellcheck disable=SC2016  # each task expands its own variables
srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=${SLURM_NTASKS_PER_NODE:-1}
    source install_packages.sh --no-detectron2 >/dev/null && exec python "$@"
' task train.py --resume auto "$@"
code=$?

[ $cancelled = yes ] && exit $code
case $code in
    75) again="it was stopped and has saved its state" ;;
    69) again="a process or node was lost" ;;
    71) again="a data worker or the disk with the images was lost" ;;
    *) exit $code ;;
esac
if [ "$code" != 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -ge 20 ]; then
    echo "job $SLURM_JOB_ID: $again, after $SLURM_RESTART_COUNT restarts: not put back" >&2
    exit $code
fi
echo "job $SLURM_JOB_ID: $again, putting it back into the queue"
scontrol requeue "$SLURM_JOB_ID"
