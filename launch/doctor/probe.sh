# Runs once on each node, by srun and before Python: FOLDER TOKEN PYTHON CONTAINER IMAGE. It prints
# "node|what|reason" for what is wrong, and "node|ok|" last, to srun, since the folder itself may be what is missing.
folder=$1 token=$2 python=$3 container=$4 image=$5
node=${SLURMD_NODENAME:-$(hostname)}
say() { echo "$node|$1|$2"; }
if ! [ -d "$folder" ]; then
    say no-folder "$folder"
elif [ "$(cat "$folder/token" 2>&1)" != "$token" ]; then
    say other-folder "$folder"
elif ! reason=$(touch "$folder/seen-by-$node" 2>&1); then
    say read-only "${reason##*: }"
elif [ -n "$python" ] && ! [ -x "$python" ]; then
    say no-python "$python"
elif [ "$container" = apptainer ] && ! command -v apptainer > /dev/null; then
    say no-apptainer "$PATH"
elif [ "$container" = apptainer ] && [ "${image#*://}" = "$image" ] && ! [ -e "$image" ]; then
    say no-image "$image"
else
    say ok ""
fi
