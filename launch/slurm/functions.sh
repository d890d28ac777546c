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
