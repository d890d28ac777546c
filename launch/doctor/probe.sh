# Runs once per node, through srun, before Python: FOLDER TOKEN PYTHON CONTAINER IMAGE. It prints "node|problem|reason",
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
