# Stands in the batch script after srun, outside any container. The job leaves $marker where it stopped behind a
# checkpoint and is to go on; the word in it is the signal that stopped it. Nothing else leads to a requeue.
say() { echo "muster: $*" >&2; }
ask() { # for a minute: Slurm's controller may be restarting
    local pause
    for pause in 1 2 4 8 15 30; do "$@" && return; sleep "$pause"; done
    "$@"
}
if [ -f "$marker" ]; then
    read -r stopped_by < "$marker"
    rm -f "$marker"
    job=$(ask scontrol --oneliner show job "$SLURM_JOB_ID")
    # A bare SIGTERM is a preemption or somebody's wish to end the job; Slurm knows. A job being cancelled is not RUNNING.
    if [[ $job != *" JobState=RUNNING "* || ($stopped_by = SIGTERM && $job != *" PreemptTime="[0-9]*) ]]; then
        say "stopped by $stopped_by, not by Slurm: not requeued; submitted again with its --output_dir it goes on"
        exit 75
    fi
    say "stopped by $stopped_by behind a checkpoint: requeued"
    ask scontrol requeue "$SLURM_JOB_ID" && exit 0
    say "Slurm did not take the requeue: submitted again with its --output_dir the job goes on"
    exit 75
fi
exit "$rc"
