"""What squeue and sacct print, parsed; and programs that are slow, fail or print banners."""

import pytest

from launch.runs import slurm
from launch.runs.slurm import Answer, SlurmJob
from tests.launch.running import command_line, wait_until
from tests.launch.runs.synthetic import StandIns

HEADER = slurm.SQUEUE_HEADER
TOKEN = "muster:0123456789abcdef"
ROW = "7|RUNNING|1:02|58:58|n[1-2]|None|(null)"
JOB = SlurmJob("RUNNING", "None", "n[1-2]", "58:58", comment="(null)", elapsed="1:02")
PRINTED = {
    "plain": f"{HEADER}\n{ROW}\n",
    "a banner before it": f"*** maintenance on Friday ***\n\n{HEADER}\n{ROW}\n",
    "a banner with our separator": f"motd|of|this|great|site|x|y\n{HEADER}\n{ROW}\nbye|to|all|of|you|all|now\n",
    "several clusters": f"CLUSTER: one\n{HEADER}\n{ROW}\n",
    "carriage returns": f"{HEADER}\r\n{ROW}\r\n",
}


@pytest.mark.parametrize("printed", PRINTED)
def test_squeue_output_is_parsed(printed: str) -> None:
    assert slurm.parse_squeue(0, PRINTED[printed], "") == Answer({"7": JOB})


def test_an_element_of_an_array_is_a_job_of_its_own() -> None:
    printed = (
        f"{HEADER}\n12_3|RUNNING|1:02|58:58|n[1-2]|None|(null)\n12_[4-7%2]|PENDING|0:00|1:00:00||Resources|(null)\n"
    )
    assert slurm.parse_squeue(0, printed, "") == Answer({"12_3": JOB}), "asked with --array, none is shown in a range"
    ended = f"{slurm.SACCT_HEADER}\n12_3|FAILED|1:0|n1\n12_[4-7%2]|PENDING|0:0|\n12_3.batch|FAILED|1:0|n1\n"
    assert set(slurm.parse_sacct(0, ended, "").jobs) == {"12_3"}


def test_a_reason_and_a_comment_may_contain_any_text() -> None:
    reason, comment = "(Nodes required | for job are DOWN, DRAINED)", f"mine | {TOKEN}"
    job = slurm.parse_squeue(0, f"{HEADER}\n7|PENDING|0:00|1:00:00||{reason}|{comment}\n", "").jobs["7"]
    assert job.reason.startswith("(Nodes required | for")
    assert slurm.is_of_submission(job.comment, TOKEN)


def test_a_job_with_another_submissions_token_is_not_ours() -> None:
    answer = Answer({"7": SlurmJob("RUNNING", comment=f"mine {TOKEN}")})
    assert answer.job("7", TOKEN) == answer.job("7", "") == answer.jobs["7"], "older records have no token"
    assert answer.job("7", "muster:0000000000000000") is None
    assert answer.job("8", TOKEN) is None
    changed = Answer({"7": SlurmJob("RUNNING", comment="changed since")})
    assert changed.job("7", TOKEN) == changed.jobs["7"]


def test_an_empty_answer_is_valid_and_garbage_is_not() -> None:
    assert slurm.parse_squeue(0, f"{HEADER}\n", "") == Answer()
    assert slurm.parse_squeue(1, "", "slurm_load_jobs error: Invalid job id specified\n") == Answer()
    assert slurm.parse_squeue(0, "welcome\n", "") == Answer(problem="squeue says 'welcome'")
    assert slurm.parse_squeue(0, "", "") == Answer(problem="squeue says 'exit code 0'")
    down = "squeue: error: Unable to contact slurm controller (connect failure)\n"
    assert (
        slurm.parse_squeue(1, "", down).problem == "squeue says 'Unable to contact slurm controller (connect failure)'"
    )


def test_sacct_output_is_parsed() -> None:
    printed = f"{slurm.SACCT_HEADER}\n7|CANCELLED by 1000|0:15|n1\n8|FAILED|137:0|n[1-2]\n9||0:0|\n10| |0:0|\n"
    jobs = slurm.parse_sacct(0, printed, "").jobs
    assert (jobs["7"].state, jobs["8"].state, jobs["8"].exit_code) == ("CANCELLED", "FAILED", "137:0")
    assert "9" not in jobs and "10" not in jobs
    disabled = "Slurm accounting storage is disabled\n"
    assert slurm.parse_sacct(1, "", disabled) == Answer(problem="sacct says 'Slurm accounting storage is disabled'")


def test_one_squeue_call_for_all_jobs(stand_ins: StandIns) -> None:
    stand_ins.squeue(ROW, "8|PENDING|0:00|1:00:00||Priority|(null)")
    answer = slurm.squeue(["7", "8", "9"], "one")
    assert set(answer.jobs) == {"7", "8"} and not answer.problem
    assert stand_ins.calls("squeue") == [
        "--array --states=all --format=%i|%T|%M|%L|%N|%r|%k --jobs=7,8,9 --clusters=one",
    ]


def test_an_array_of_any_size_is_asked_for_by_one_id(stand_ins: StandIns) -> None:
    stand_ins.squeue("12345678_3|PENDING|0:00|1:00:00||Priority|(null)")
    answer = slurm.squeue(["7", *(f"12345678_{number}" for number in range(20_000))])
    assert (set(answer.jobs), answer.problem) == ({"12345678_3"}, "")
    assert stand_ins.calls("squeue")[0].endswith(" --jobs=7,12345678")


def test_without_jobs_slurm_is_not_queried(stand_ins: StandIns) -> None:
    assert slurm.squeue([]) == slurm.sacct([]) == Answer()


def test_a_slow_squeue_is_killed_with_its_children(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "SECONDS", 3.0)
    folder = stand_ins.folder
    stand_ins.add("squeue", f"echo $$ > {folder}/parent\nsleep 600 &\necho $! > {folder}/child\nwait")
    assert slurm.squeue(["7"]).problem == "squeue did not answer in 3 s"
    for name in ("parent", "child"):
        pid = int((folder / name).read_text())
        wait_until(lambda pid=pid: command_line(pid) == b"")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo no controller >&2; exit 1", "squeue says 'no controller'"),
        ("echo hello; exit 0", "squeue says 'hello'"),
        (r"printf '\377\376\n'; exit 3", "squeue says '\ufffd\ufffd'"),
    ],
)
def test_output_of_a_failing_squeue_is_quoted(script: str, problem: str, stand_ins: StandIns) -> None:
    stand_ins.add("squeue", script)
    assert slurm.squeue(["7"]) == Answer(problem=problem)


def test_missing_slurm_is_reported(stand_ins: StandIns) -> None:
    assert slurm.squeue(["7"]).problem == "squeue is not installed here"
