# 2 files of /checkout at 0123456789ab, with local edits -> /runs/demo/jobs/submitted-now/code
# each process: launch.slurm.worker.run('/runs/demo/jobs/submitted-now/config.yaml', '--output_dir', '/runs/demo')
# checked first: sbatch --test-only
sbatch <<'END-OF-SCRIPT'
#!/bin/bash

# Parameters
#SBATCH --chdir=/somewhere
#SBATCH --cpus-per-task=4
#SBATCH --error=/runs/demo/jobs/%j/%j_0_log.err
#SBATCH --gpus-per-node=4
#SBATCH --job-name=demo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/runs/demo/jobs/%j/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=60
#SBATCH --wckey=submitit

# setup
export ACCELERATE_USE_CPU=false
export ACCELERATE_MIXED_PRECISION=no
export MUSTER_THREADS=4
marker=/runs/demo/jobs/$SLURM_JOB_ID/requeue
rm -f "$marker"
unset PYTHONPATH PYTHONHOME

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/demo/jobs/%j/%j_%t_log.out --error /runs/demo/jobs/%j/%j_%t_log.err --kill-on-bad-exit=1 --wait=60 --cpus-per-task=4 sh -c 'trap "" TERM USR2; exec "$@"' sh apptainer exec --nv --bind /data,/runs/demo,/somewhere,/tmp --pwd /somewhere --env PYTHONNOUSERSITE=1 '/images/muster image.sif' python -u -P /runs/demo/jobs/submitted-now/code/launch/slurm/worker.py -u -m submitit.core._submit /runs/demo/jobs/%j


# teardown
rc=$?
# Stands in the batch script after srun, outside any container. The job leaves $marker where it stopped behind a
# checkpoint and is to go on; in it stands the signal that stopped it. Nothing else leads to a requeue.
give_up() { echo "muster: $1; submitted again with its --output_dir the job goes on" >&2; exit 75; }
ask() { # for a minute: Slurm's controller may be restarting
    local pause
    for pause in 1 2 4 8 15 30; do "$@" && return; sleep "$pause"; done
    "$@"
}
if [ -f "$marker" ]; then
    stopped_by=$(cat "$marker")
    rm -f "$marker"
    job=$(ask scontrol --oneliner show job "$SLURM_JOB_ID") || give_up "Slurm does not answer"
    # A bare SIGTERM is a preemption or somebody's wish to end the job: Slurm knows. A cancelled job is not RUNNING.
    if [[ $job != *" JobState=RUNNING "* || ($stopped_by = SIGTERM && $job != *" PreemptTime="[0-9]*) ]]; then
        give_up "stopped by $stopped_by, not by Slurm: not requeued"
    fi
    echo "muster: stopped by $stopped_by: requeued" >&2
    ask scontrol requeue "$SLURM_JOB_ID" || give_up "Slurm does not take the requeue"
    exit 0
fi
exit "$rc"
END-OF-SCRIPT
