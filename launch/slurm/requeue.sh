# What follows srun, outside any container. The job leaves $marker where it stopped and is to be requeued; the file holds
# the signal that stopped it. Nothing else leads to a requeue.
give_up() { echo "muster: $1; submitted again with its --output_dir the job resumes" >&2; exit 75; }
ask() { # for a minute: Slurm's controller may be restarting
    local pause
    for pause in 1 2 4 8 15 30; do "$@" && return; sleep "$pause"; done
    "$@"
}
if [ -f "$marker" ]; then
    stopped_by=$(cat "$marker")
    rm -f "$marker"
    shown=$(ask scontrol --oneliner show job "$job") || give_up "Slurm does not answer"
    # A bare SIGTERM is a preemption or somebody's wish to end the job: Slurm knows. A cancelled job is not RUNNING.
    if [[ $shown != *" JobState=RUNNING "* || ($stopped_by = SIGTERM && $shown != *" PreemptTime="[0-9]*) ]]; then
        give_up "stopped by $stopped_by, not by Slurm: not requeued"
    fi
    echo "muster: stopped by $stopped_by: requeued" >&2
    ask scontrol requeue "$job" || give_up "Slurm does not take the requeue"
    exit 0
fi
[ "$rc" = 0 ] || report_failed "$(in_words "$rc")"
exit "$rc"
