#!/usr/bin/env bash
# One run over the tasks of a Slurm job; a task for each accelerator, all of a node's visible to each of its tasks:
#
#     sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 experiments/launch/slurm.sh \
#         --config=configs/base.py --workdir=runs/base --config.mesh.fsdp=16
#
# Two minutes before the time limit, and where a job of higher priority takes the nodes, the tasks get SIGTERM: they save,
# end with 42, and the job goes back into the queue, from which it continues. Slurm waits two minutes before it starts a
# job again. --workdir and data.directory must be on a file system that all nodes share.
#SBATCH --job-name=lcx --requeue --open-mode=append --signal=TERM@120

trap : TERM # the shell waits for its tasks, which save
srun --kill-on-bad-exit=0 "${LCX:-lcx}" train "$@"
code=$?
if [ "$code" = 42 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # which ends when Slurm takes the job back: another exit code would be the job's last
fi
exit "$code"
