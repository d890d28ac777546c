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
