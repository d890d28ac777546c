sbatch <<'END-OF-SCRIPT'
#!/bin/bash

# Parameters
#SBATCH --chdir=/
#SBATCH --comment=muster-doctor:<token>
#SBATCH --cpus-per-task=4
#SBATCH --error=/dev/null
#SBATCH --gpus-per-node=4
#SBATCH --job-name=muster-doctor
#SBATCH --no-requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
#SBATCH --propagate=NONE
#SBATCH --signal=USR2@30
#SBATCH --time=5

# setup
: > '/my runs/.doctor-now/batch.log' || exit 91
exec >> '/my runs/.doctor-now/batch.log' 2>&1
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
submission=muster-doctor:<token>
run='/my runs/.doctor-now'
status="$run/status.json"
marker="$run/jobs/$job/requeue"
link_logs "$run/jobs"
rm -f "$marker"
cd '/my runs' || fail 1 "the working directory is not on this node" "$(hostname)"
export ACCELERATE_USE_CPU=false
export MUSTER_THREADS=4
export SUBMITIT_FOLDER='/my runs/.doctor-now'
export HF_HOME=/cache
unset PYTHONPATH PYTHONHOME
srun --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=0 --unbuffered bash -c '# Runs once per node, through srun, before Python: FOLDER TOKEN PYTHON CONTAINER IMAGE. It prints "node|problem|reason",
# or "node|ok|" if there is none. The output goes through srun, because the node may not see the folder.
folder=$1 token=$2 python=$3 container=$4 image=$5
node=${SLURMD_NODENAME:-$(hostname)}
report() { echo "$node|$1|$2"; }
if ! [ -d "$folder" ]; then
    report no-folder "$folder"
elif [ "$(cat "$folder/token" 2>&1)" != "$token" ]; then
    report other-folder "$folder"
elif ! reason=$(touch "$folder/seen-by-$node" 2>&1); then
    report read-only "${reason##*: }"
elif [ -n "$python" ] && ! [ -x "$python" ]; then
    report no-python "$python"
elif [ "$container" = apptainer ] && ! command -v apptainer > /dev/null; then
    report no-apptainer "$PATH"
elif [ "$container" = apptainer ] && [ "${image#*://}" = "$image" ] && ! [ -e "$image" ]; then
    report no-image "$image"
else
    report ok ""
fi
' bash '/my runs/.doctor-now' muster-doctor:<token> '' apptainer /images/muster.sif > '/my runs/.doctor-now/nodes.txt'
[ "$(grep -c "|ok|" '/my runs/.doctor-now/nodes.txt')" = 2 ] || exit 92
seen() { ls '/my runs/.doctor-now' | grep -c ^seen-by-; }
for _ in {1..10}; do [ "$(seen)" = 2 ] && break; sleep 1; done
[ "$(seen)" = 2 ] || exit 92

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/my runs/.doctor-now/%j_%t_log.out' --error '/my runs/.doctor-now/%j_%t_log.err' --kill-on-bad-exit=1 --cpus-per-task=4 apptainer exec --nv --bind '/cache,/my runs' --pwd '/my runs' --env PYTHONNOUSERSITE=1 /images/muster.sif python -u -P '/my runs/.doctor-now/code/launch/doctor/node.py' '/my runs/.doctor-now' 4

END-OF-SCRIPT
