# 2 files of /checkout at 0123456789ab, with local edits -> /my runs/it's; $(touch X) "a" `b` #c/jobs/submitted-now/code
# each process: launch.slurm.worker.run('/my runs/it\'s; $(touch X) "a" `b` #c/jobs/submitted-now/config.yaml', '--output_dir', '/my runs/it\'s; $(touch X) "a" `b` #c')
# checked first: sbatch --test-only
sbatch <<'END-OF-SCRIPT'
#!/bin/bash

# Parameters
#SBATCH --chdir=/somewhere
#SBATCH --comment=muster:dd08212b75a11fbc
#SBATCH --cpus-per-task=4
#SBATCH --error='/my runs/it'"'"'s; $(touch X) "a" `b` #c/jobs/batch-%j.err'
#SBATCH --gpus-per-node=4
#SBATCH --job-name=it-s----touch-X---a---b---c
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output='/my runs/it'"'"'s; $(touch X) "a" `b` #c/jobs/batch-%j.out'
#SBATCH --propagate=NONE
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=60

# setup
# Functions of the batch script, which runs on the first node, outside any container.
# scontrol would apply the plain job id of an array to all its elements: an element is named ARRAY_INDEX.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
unset SLURM_JWT # of the submission, expired when the job ends; on a node Slurm's programs need none
fail() { # CODE REASON [DETAIL]: end the job before srun
    in_setup=
    echo "muster: $2${3:+: $3}" >&2
    report_failed "$2"
    exit "$1"
}
report_failed() { # REASON: for a job that could not write its own status. The status of another job is not changed.
    local own="\"state\": \"RUNNING\".*\"owner\": \"slurm:$job\"|\"state\": \"QUEUED\".*\"owner\": \"$submission\""
    [ -f "$status" ] && tr -d '\n' < "$status" | grep -qE "$own" || return 0
    sed -E "s|(\"state\": )\"[A-Z]*\"|\1\"FAILED\"|; s|(\"reason\": )\".*\"|\1\"$1\"|" "$status" > "$status.$job" \
        && mv -f "$status.$job" "$status"
}
in_words() { # CODE
    case "$1" in
        137) echo "exit code 137: killed by SIGKILL, out of memory?" ;;
        129 | 1[3-5][0-9]) echo "exit code $1: killed by SIG$(kill -l $(($1 - 128)))" ;;
        *) echo "exit code $1" ;;
    esac
}
link_logs() { # JOBS: make the job's folder, where the logs of the batch script are those of rank 0
    local kind
    mkdir -p "$1/$job" || fail 1 "the run folder cannot be written on this node" "$(hostname)"
    for kind in out err; do
        [ ! -e "$1/batch-$job.$kind" ] || ln -sf "../batch-$job.$kind" "$1/$job/${job}_0_log.$kind"
    done
}
check_setup() { # CODE COMMAND: called when a command of --setup fails; failures inside sourced files do not count
    [ "${#BASH_SOURCE[@]}" -gt 2 ] || fail "$1" "a command of --setup failed, exit code $1" "$2"
}
leave_setup() { # CODE COMMAND: called at the shell's exit, as when a file that --setup sources calls exit
    [ -z "$in_setup" ] || [ "$1" = 0 ] || fail "$1" "--setup ended the job, exit code $1" "$2"
}
submission=muster:dd08212b75a11fbc
run='/my runs/it'"'"'s; $(touch X) "a" `b` #c'
status="$run/status.json"
marker="$run/jobs/$job/requeue"
link_logs "$run/jobs"
rm -f "$marker"
cd /somewhere || fail 1 "the working directory is not on this node" "$(hostname)"
[ -x <python> ] || fail 127 "the Python environment is not on this node" "$(hostname)"
export ACCELERATE_USE_CPU=false
export ACCELERATE_MIXED_PRECISION=no
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
export MUSTER_THREADS=4

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/my runs/it'"'"'s; $(touch X) "a" `b` #c/jobs/%j/%j_%t_log.out' --error '/my runs/it'"'"'s; $(touch X) "a" `b` #c/jobs/%j/%j_%t_log.err' --kill-on-bad-exit=1 --wait=60 --cpus-per-task=4 sh -c 'trap "" TERM USR2; exec "$@"' sh <python> -u -P '/my runs/it'"'"'s; $(touch X) "a" `b` #c/jobs/submitted-now/code/launch/slurm/worker.py' -u -m submitit.core._submit '/my runs/it'"'"'s; $(touch X) "a" `b` #c/jobs/%j'


# teardown
rc=$?
# Runs after srun, outside any container. A job that stopped and wants to be requeued creates $marker, which contains
# the signal that stopped it. Nothing else causes a requeue.
give_up() { echo "muster: $1; submitted again with its --output_dir the job resumes" >&2; exit 75; }
retry() { # for a minute: Slurm's controller may be restarting
    local pause
    for pause in 1 2 4 8 15 30; do "$@" && return; sleep "$pause"; done
    "$@"
}
if [ -f "$marker" ]; then
    stopped_by=$(cat "$marker")
    rm -f "$marker"
    shown=$(retry scontrol --oneliner show job "$job") || give_up "Slurm does not answer"
    # SIGTERM means a preemption, which Slurm records, or a request to end the job. A cancelled job is not RUNNING.
    if [[ $shown != *" JobState=RUNNING "* || ($stopped_by = SIGTERM && $shown != *" PreemptTime="[0-9]*) ]]; then
        give_up "stopped by $stopped_by, not by Slurm: not requeued"
    fi
    echo "muster: stopped by $stopped_by: requeued" >&2
    retry scontrol requeue "$job" || give_up "Slurm does not take the requeue"
    exit 0
fi
[ "$rc" = 0 ] || report_failed "$(in_words "$rc")"
exit "$rc"
END-OF-SCRIPT
