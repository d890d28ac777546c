"""Names that the launcher and the job share: environment variables, and files and folders by their names.

Both sides import them from here. The batch script (launch/slurm/requeue.sh) gets its marker's name from the launcher.
"""

EXIT_CODE_FILE = "MUSTER_EXIT_CODE_FILE"
"""File into which the job writes its exit code: launchers in between turn every failure into a 1."""
THREADS = "MUSTER_THREADS"
"""Threads of a process, as computed by our launcher."""
OWNER = "MUSTER_OWNER"
"""Who owns the run folder: a requeued job has the same owner as before."""
IMAGE_DIGEST = "MUSTER_IMAGE_DIGEST"
"""Digest of the container image that the job runs in."""
MASTER_ADDR = "MUSTER_MASTER_ADDR"
"""Address of the first node, where the one that Slurm gives cannot be reached."""
SNAPSHOT_STATE = ".snapshot.json"
"""File of a submitted copy of the code: its git commit and the edits made since."""
JOBS = "jobs"
"""Folder of a run folder that holds what the launcher wrote, by job id."""
STATUS = "status.json"
"""File of a run folder: what the run is doing."""
