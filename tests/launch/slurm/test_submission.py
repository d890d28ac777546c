"""The plan of a submission, whole, against golden files; rejections before anything is queued or written.

To update the golden files: `UPDATE_GOLDEN=1 pytest tests/launch/slurm/test_submission.py`.
What a cluster makes of the scripts is in tests/cluster.
"""

import os
import re
import shlex
import subprocess
import sys
import uuid
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job import config
from job.config import Config
from job.errors import Refused
from launch import cli, make
from launch.sites import Site
from launch.slurm import snapshot
from launch.slurm import submission as slurm
from launch.slurm.snapshot import Snapshot
from launch.slurm.submission import Array, Request
from tests.support import golden

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]
CODE = Snapshot(Path("/checkout"), "0123456789abcdef", ("job/train.py", "launch/slurm/worker.py"), (), "a diff")
DEMO = Request(Config(), gpus=4, tasks=None, nodes=1, run=Path("/runs/demo"), is_new=False, stamp="now")
BF16 = config.from_dict({"mixed_precision": "bf16"})
DATA = config.from_dict({"train_file": "/data/a b.csv", "validation_file": "/data/c.csv"})
EVERYTHING = Site(
    partition="gpu,long",
    account="me",
    qos="high",
    constraint="a100|h100&nvlink",
    gres="gpu:h100",
    time="1-12:00:00",
    cpus_per_task="8",
    signal_delay="300",
    master_addr="10.0.0.1",
    setup='module load cuda && export A="$B"',
    sbatch="--mem=64G --exclusive --comment='my run'",
    job_name="mine",
)
APPTAINER = Site(container="apptainer", image="/images/muster image.sif")
PYXIS = Site(container="pyxis", image="registry#team/muster:1.0")

ARRAY = Array({number: config.from_dict({"seed": number}) for number in (7, 0, 1, 2)}, parallel=3)

PLANS = {
    "two_nodes": (replace(DEMO, nodes=2, config=BF16, is_new=True), Site(wckey="mine"), {}),
    "cpu": (replace(DEMO, gpus=0, tasks=2), Site(), {"OMP_NUM_THREADS": "3", "HF_TOKEN": "canary"}),
    "everything": (DEMO, EVERYTHING, {}),
    "quoted": (replace(DEMO, run=Path("""/my runs/it's; $(touch X) "a" `b` #c""")), Site(), {}),
    "apptainer": (
        replace(DEMO, config=DATA),
        APPTAINER,
        {"HF_HOME": "/cache", "HF_DATASETS_CACHE": "/prepared"},
    ),
    "apptainer_cpu": (replace(DEMO, gpus=0), APPTAINER, {"HF_HOME": "/cache"}),
    "array": (replace(DEMO, gpus=1, run=Path("/runs/my sweep"), array=ARRAY), Site(), {}),
    "pyxis": (replace(DEMO, config=DATA), PYXIS, {"XDG_CACHE_HOME": "/xdg"}),
}


def plan(request: Request, at: Site, environ: dict[str, str] | None = None) -> slurm.Submission:
    return slurm.plan(request, at, environ or {}, Path("/somewhere"), CODE)


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_equals_the_golden_file(name: str) -> None:
    text = f"{plan(*PLANS[name])}\n".replace(sys.executable, "<python>")
    golden.check(GOLDEN / f"{name}.sh", text)


def test_the_files_of_an_array_are_numbered_by_element() -> None:
    assert str(ARRAY) == "0-2,7%3"
    assert str(Array({5: Config()}, parallel=9)) == "5%1"
    members = plan(*PLANS["array"]).members
    assert [member.run.name for member in members] == ["0", "1", "2", "7"]
    assert [member.job_id("12") for member in members] == ["12_0", "12_1", "12_2", "12_7"]
    assert [member.config.training.seed for member in members] == [0, 1, 2, 7]


def test_every_golden_file_has_its_plan() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_bash_can_parse_the_script(name: str) -> None:
    subprocess.run(["bash", "-n"], input=plan(*PLANS[name]).plan.script, text=True, check=True)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/%\\\u2028\u2029"), min_size=1)


@given(TEXT, TEXT)
@settings(max_examples=50)
def test_folder_names_are_quoted(run: str, image: str) -> None:
    """With any folder name the script has the same lines, and its arguments survive quoting."""
    path = Path("/", run)
    if path.name in ("", "..", "."):
        return
    try:
        submission = plan(replace(DEMO, run=path), Site(container="pyxis", image=image), {"HF_HOME": "/cache"})
    except Refused:
        return
    script, plain = (
        submission.plan.script.splitlines(),
        plan(DEMO, PYXIS, {"HF_HOME": "/cache"}).plan.script.splitlines(),
    )
    assert len(script) == len(plain)
    words = shlex.split(next(line for line in script if line.startswith("srun ")))
    assert f"--container-image={image}" in words
    assert words[-1] == f"{path}/jobs/%j"


REJECTED = {
    "no nodes": (replace(DEMO, nodes=0), Site(), "--nodes must be above 0"),
    "no tasks": (replace(DEMO, gpus=0, tasks=0), Site(), "--tasks must be above 0"),
    "tasks of GPUs": (replace(DEMO, tasks=2), Site(), "--tasks applies to the CPU only"),
    "no time": (DEMO, Site(time="0"), "--time takes 30"),
    "no image": (DEMO, Site(container="apptainer"), "--container apptainer needs an image"),
    "an image that is a flag": (DEMO, replace(APPTAINER, image="--writable"), "needs an image"),
    "no container": (DEMO, Site(image="a.sif"), "add --container"),
    "a bare sqsh": (DEMO, replace(PYXIS, image="a.sqsh"), r"as \./a\.sqsh"),
    "a percent sign": (replace(DEMO, run=Path("/100%")), Site(), "Slurm does not allow %"),
    "a line break": (replace(DEMO, run=Path("/a\ntouch X")), Site(), "control character"),
    "a name in Latin-1": (replace(DEMO, run=Path(os.fsdecode(b"/\xe9"))), Site(), "not valid UTF-8"),
    "a colon to mount": (replace(DEMO, run=Path("/a:b")), PYXIS, "comma or colon"),
    "no requeue": (DEMO, Site(sbatch="--no-requeue"), "--sbatch --no-requeue: the launcher"),
    "a word": (DEMO, Site(sbatch="rm"), "flags of the form --name=value, not 'rm'"),
    "half a quote": (DEMO, Site(sbatch="--comment='a"), "cannot be split into flags"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_invalid_requests_are_rejected(case: str) -> None:
    request, at, message = REJECTED[case]
    with pytest.raises(Refused, match=message):
        plan(request, at)


def test_every_site_setting_is_in_the_example() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert re.findall(r"^#MUSTER_(\w+)=", text, re.MULTILINE) == [
        known.name.upper() for known in sorted(fields(Site), key=lambda known: text.find(f"_{known.name.upper()}="))
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The command line, on a machine without Slurm


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to stand in, and a PATH with git but without sbatch and srun."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "bash"):
        (tools / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    monkeypatch.setenv("PATH", str(tools))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refusal(argv: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    assert cli.main(argv) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def test_the_dry_run_needs_no_slurm(no_slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", "mrpc", "--gpus", "4", "--nodes=2", "--dry_run", "--", "--learning_rate", "3e-5"]) == 0
    out = capfd.readouterr().out
    assert "#SBATCH --gpus-per-node=4\n" in out
    assert "#SBATCH --nodes=2\n" in out
    assert "#SBATCH --ntasks-per-node=4\n" in out
    assert list(no_slurm.iterdir()) == []


def test_without_slurm_nothing_is_submitted_or_written(no_slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert refusal(["submit", "--gpus", "1"], capfd).startswith("no Slurm here")
    assert list(no_slurm.iterdir()) == []


SHELL = ["4;touch X", "$(touch X)", "$(shell touch X)", "`touch X`", "4\ntouch X"]
ATTACKS = [*SHELL, "-1", "abc", "1.5", "", "1000000000"]
MAKE_ATTACKS = [
    *(("GPUS", value) for value in ATTACKS),
    *((name, value) for name in ("NODES", "TASKS") for value in ATTACKS if value),
    *((name, value) for name in ("TIME", "PARTITION") for value in [*SHELL, "--wrap=touch X"]),
    *(("RECIPE", value) for value in ("demo;touch X", "$(shell touch X)", "--dry_run", "a\ntouch X")),
    *(("ARGS", value) for value in ("; touch X", "--seed '$(shell touch X)'", "--output_dir $'a\ntouch X'")),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, marks=() if "$(shell" in value else pytest.mark.long) for name, value in MAKE_ATTACKS],
)
def test_make_does_not_evaluate_values(name: str, value: str, tmp_path: Path) -> None:
    """The real make, with sbatch and srun on PATH that record whether they were run."""
    for tool in ("sbatch", "srun"):
        (tmp_path / tool).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n", encoding="ascii")
        (tmp_path / tool).chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    given = {"GPUS": "0", name: value}
    # The recipe line itself, without `setup`: an environment is there.
    words = ["make", "-f", str(ROOT / "Makefile"), f"VENV={Path(sys.executable).parents[1]}", "-o", "setup", "submit"]
    done = subprocess.run(
        [*words, *(f"{key}={text}" for key, text in given.items())],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"sbatch", "srun"}


@pytest.mark.parametrize("flag", [known.name for known in fields(Site)])
@pytest.mark.parametrize("way", ["flag", "environment"])
def test_no_setting_can_inject_a_line(
    flag: str, way: str, no_slurm: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "a\ntouch X"
    if way == "environment":
        monkeypatch.setenv(f"MUSTER_{flag.upper()}", value)
        assert repr(value) in refusal(["submit", "--gpus=1"], capfd)
    else:
        assert repr(value) in refusal(["submit", "--gpus=1", f"--{flag}={value}"], capfd)
    assert list(no_slurm.iterdir()) == []


@pytest.mark.parametrize("flag", [k.name for k in fields(Site) if k.name not in ("setup", "image", "sbatch")])
@pytest.mark.parametrize("value", ["a;touch X", "$(touch X)", "`touch X`", "a b", "--wrap=x", "'a'"])
def test_job_names_with_special_characters_are_rejected(
    flag: str, value: str, no_slurm: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert repr(value) in refusal(["submit", "--gpus=1", f"--{flag}={value}"], capfd)


def test_flags_override_the_environment_which_overrides_dotenv(
    no_slurm: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("PARTITION", "ACCOUNT", "QOS")
    for name in names:
        monkeypatch.setenv(f"MUSTER_{name}", "environment")
    monkeypatch.delenv("MUSTER_QOS")
    (no_slurm / ".env").write_text("".join(f"MUSTER_{name}=dotenv\n" for name in names), encoding="ascii")
    assert cli.main(["submit", "--gpus=1", "--partition=flag", "--dry_run"]) == 0
    monkeypatch.delenv("MUSTER_QOS", raising=False)
    out = capfd.readouterr().out
    assert "--partition=flag\n" in out
    assert "--account=environment\n" in out
    assert "--qos=dotenv\n" in out


def test_a_dry_run_shows_no_secret(
    no_slurm: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-environment")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN")
    (no_slurm / ".env").write_text("HF_TOKEN=canary-dotenv\n", encoding="ascii")
    assert cli.main(["submit", "--gpus=1", "--dry_run"]) == 0
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "canary" not in "".join(capfd.readouterr())


def test_make_variables_become_arguments() -> None:
    environ = {"RECIPE": "mrpc", "GPUS": "4", "NODES": "2", "TIME": "4h", "ARGS": "--learning_rate 3e-5"}
    assert make.submit_argv(environ) == [
        *("submit", "mrpc", "--gpus=4", "--nodes=2", "--tasks=", "--time=4h", "--partition=", "--"),
        *("--learning_rate", "3e-5"),
    ]


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from launch import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'submitit', 'numpy', 'tyro') if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dry_run_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from launch import cli; cli.main(['submit', '--gpus', '1', '--dry_run']); "
        "print([name for name in ('torch', 'accelerate', 'transformers', 'datasets') if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------------------------------------------------------------
# What is queued, with an sbatch that accepts or rejects everything


FAKE = """#!/bin/sh
[ "$1" != --test-only ] || { cat > %(here)s/asked; %(test)s; exit; }
[ "$1" = --parsable ] || exit 9
cp "$2" %(here)s/queued
%(queue)s
"""


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with sbatch and srun of `FAKE` on PATH; what they were given is left in it."""
    fake_slurm(tmp_path, "exit 0", "echo 7")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fake_slurm(folder: Path, test: str, queue: str) -> None:
    (folder / "sbatch").write_text(FAKE % {"here": folder, "test": test, "queue": queue}, encoding="ascii")
    (folder / "srun").write_text("#!/bin/sh\n", encoding="ascii")
    for name in ("sbatch", "srun"):
        (folder / name).chmod(0o755)


def test_the_submitted_script_equals_that_of_the_dry_run(submitted: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = submitted / "a run; it's $(mine)"
    own, job = ["submit", "demo", "--gpus=2", "--nodes=2", "--setup=true"], ["--", "--output_dir", str(run)]
    assert cli.main([*own, "--dry_run", *job]) == 0
    printed = capfd.readouterr().out
    assert cli.main([*own, *job]) == 0
    tested, queued = ((submitted / name).read_text(encoding="utf-8") for name in ("asked", "queued"))
    assert tested == queued + "\n"
    stamps = re.compile(r"submitted-\d+-\d+|muster:\w+")
    assert stamps.sub("", queued) in stamps.sub("", printed)
    assert (run / "jobs" / "7" / "7_submission.sh").read_text(encoding="utf-8") == queued


def test_the_settings_are_those_of_the_submission(submitted: Path) -> None:
    (submitted / "mine.yaml").write_text("dataset_name: docstrings\nlearning_rate: 1e-3\n", encoding="ascii")
    assert cli.main(["submit", "mine.yaml", "--gpus=1", "--", "--output_dir", "run", "--seed=3"]) == 0
    (submitted / "mine.yaml").write_text("dataset_name: docstrings\nlearning_rate: 2e-3\n", encoding="ascii")
    [folder] = (submitted / "run" / "jobs").glob("submitted-*")
    kept = config.load_recipe(str(folder / "config.yaml"))
    assert (kept.training.learning_rate, kept.training.seed) == (1e-3, 3)


@pytest.mark.parametrize(
    "flags", [("--overwrite_output_dir",), ("--resume_from_checkpoint", "/runs/demo/checkpoints/step-00000003"), ()]
)
def test_the_job_gets_the_flags_that_its_settings_file_does_not_have(flags: tuple[str, ...]) -> None:
    settings = config.parse(["demo", *flags])
    [member] = plan(replace(DEMO, config=settings), Site()).members
    assert member.argv == (str(member.file), "--output_dir", "/runs/demo", *flags)


@pytest.mark.parametrize(
    ("test", "queue"),
    [
        ("echo 'sbatch: error: invalid partition specified: x' >&2; exit 1", "exit 9"),
    ],
)
def test_a_job_rejected_by_slurm_leaves_no_files(
    test: str, queue: str, submitted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_slurm(submitted, test, queue)
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 2
    assert "error: Slurm does not take the job: invalid partition specified: x\n" in capfd.readouterr().err
    assert not (submitted / "run").exists()


def test_a_rejected_job_leaves_an_existing_run_unchanged(submitted: Path) -> None:
    fake_slurm(submitted, "exit 0", "exit 1")
    (submitted / "run").mkdir()
    (submitted / "run" / "config.yaml").write_text("kept", encoding="ascii")
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 2
    assert (submitted / "run" / "config.yaml").read_text(encoding="ascii") == "kept"
    assert not list((submitted / "run" / "jobs").glob("submitted-*"))


def test_the_secrets_of_the_environment_are_not_written(submitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = uuid.uuid4().hex
    monkeypatch.setenv("HF_TOKEN", canary)
    (submitted / ".env").write_text(f"WANDB_API_KEY={canary}\n", encoding="ascii")
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 0
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    written = [path for path in (submitted / "run").rglob("*") if path.is_file()]
    assert len(written) > 50
    assert [path for path in written if canary.encode() in path.read_bytes()] == []


def test_only_our_snapshot_of_the_code_is_pickled(submitted: Path) -> None:
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 0
    pickled = (submitted / "run" / "jobs" / "7" / "7_submitted.pkl").read_bytes()
    assert b"launch.slurm.worker" in pickled
    assert str(ROOT).encode() not in pickled


def test_a_snapshot_of_this_checkout_includes_the_launcher(no_slurm: Path) -> None:
    assert "launch/slurm/worker.py" in snapshot.describe(ROOT).files
