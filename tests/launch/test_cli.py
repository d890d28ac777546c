"""The launcher's command line: one-line errors before anything is started, and values that are never evaluated."""

import io
import os
import pwd
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.runtime import environment
from launch import cli, make, parsing
from launch.local import command as local

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "accelerate", "transformers", "datasets", "numpy")


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, a machine without GPUs, and a failure where a plan would be executed."""

    def fail(*_: object) -> int:
        raise AssertionError("a plan was carried out")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local, "run", fail)


def refusal(argv: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one-line error for `argv`."""
    assert cli.main(argv) == 2
    out, stderr = capfd.readouterr()
    assert out == ""
    assert re.fullmatch("error: .*\n", stderr)
    return stderr.removeprefix("error: ").rstrip("\n")


REJECTED = {
    "": f"no verb given: choose one of {', '.join(cli.VERBS)}; --help describes them",
    "locl": f"unknown verb locl: choose one of {', '.join(cli.VERBS)}; did you mean local?",
    "--gpus 1": f"unknown verb --gpus: choose one of {', '.join(cli.VERBS)}",
    "local --gpu 1": "unknown flag --gpu; did you mean --gpus?; job flags go after `--`",
    "local --dry-run": "unknown flag --dry-run; did you mean --dry_run?; job flags go after `--`",
    "local mrpc --learning_rate 1": "--learning_rate is a job flag: put it after `--`, as in python -m launch "
    "local -- --learning_rate ...",
    "local mrpc more": "unexpected argument more; job flags go after `--`",
    "local --gpus": "--gpus expected one argument; --help lists the flags",
    "local --gpus 1": "--gpus 1: only 0 are visible (in CUDA_VISIBLE_DEVICES, else nvidia-smi -L; none with ACC",
    "local --tasks 0": "--tasks must be above 0, not 0",
    "local mrcp": "no recipe mrcp: choose one of cola, deberta-v3, deberta-v3-lora, demo, modernbert, mrpc, ",
    "local -- --lerning_rate 1": "unknown flag --lerning_rate; did you mean --learning_rate?",
    "local -- --learning_rate x": "--learning_rate takes a number, not 'x'",
    "local -- --learning_rate 0": "--learning_rate must be above 0, not 0.0",
    "local -- --train_file no.csv --validation_file no.csv": "file not found: no.csv",
    "local --tasks 2 -- --learning_rate 1": "nothing to train on",
    "local predict": "nothing to predict: give --test_file",
    "docker --tasks 2": "unknown flag --tasks; job flags go after `--`",
    "docker --imgae x": "unknown flag --imgae; did you mean --image?; job flags go after `--`",
    "status --jsno": "unknown flag --jsno; did you mean --json?; job flags go after `--`",
    "logs --folow": "unknown flag --folow; did you mean --follow?; job flags go after `--`",
    "rerun x --partitoin gpu": "unknown flag --partitoin; did you mean --partition?; job flags go after `--`",
    "status -- --learning_rate 1": "`status` takes no job flags: remove what follows `--`",
    "recipes -- --learning_rate 1": "`recipes` takes no job flags: remove what follows `--`",
    "recipes mrpc": "unexpected argument mrpc",
}


@pytest.mark.parametrize("line", REJECTED)
def test_invalid_requests_are_rejected_in_one_line(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert refusal(line.split(), capfd).startswith(REJECTED[line])


@pytest.mark.parametrize("line", ["docker demo --dry_run", "prefetch demo --dry_run"])
def test_without_a_home_the_message_names_what_to_set(
    line: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", *environment.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    message = "there is no home for ~/.cache/huggingface: set HOME, or HF_HOME to a folder for downloads"
    assert refusal(line.split(), capfd) == message


def test_a_process_of_another_launcher_starts_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert refusal(["local", "--dry_run"], capfd).startswith("WORLD_SIZE=2 is set, as in the processes of torchrun or")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert planned(["local", "--dry_run"], capfd)


def shown(argv: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 0
    return capfd.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_shows_every_verb_and_each_verb_its_flags(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    known = cli.VERBS[verb]
    assert re.search(rf"^  {verb} +{known.help}$", capfd.readouterr().out, re.MULTILINE)
    of_verb = shown([verb, "--help"], capfd)
    assert of_verb.startswith(f"usage: python -m launch {verb} [-h]")
    described = re.findall(r"^  (?:-h, )?(--\w+)", of_verb, re.MULTILINE)
    assert described == known.parser().long_flags()


ATTACKS = [
    "4;touch X",
    "$(touch X)",
    "`touch X`",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "abc",
    "0x2",
    "2 2",
    "\u0662",
    "1\n2",
]


@pytest.mark.parametrize("flag", ["--gpus", "--tasks"])
@pytest.mark.parametrize("value", ATTACKS)
def test_numeric_arguments_must_be_numbers(flag: str, value: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert refusal(["local", f"{flag}={value}"], capfd).startswith(f"{flag} takes an integer, not {value!r}")


def test_a_number_may_have_six_digits(capfd: pytest.CaptureFixture[str]) -> None:
    assert parsing.count("36000") == 36_000
    assert refusal(["local", "--tasks=1000000"], capfd).startswith(
        "--tasks takes an integer below 1,000,000, not '1000"
    )


@given(st.text())
def test_every_text_is_a_count_or_rejected(text: str) -> None:
    try:
        count = parsing.count(text)
    except parsing.argparse.ArgumentTypeError:
        assert not text.isascii() or not text.strip().isdigit() or len(text.strip()) > 6
    else:
        assert count is None if not text.strip() else count == int(text)


def planned(argv: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    assert cli.main(argv) == 0
    out, stderr = capfd.readouterr()
    assert stderr == ""
    return out


def test_dry_run_prints_only_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    text = planned(["local", "mrpc", "--gpus", "", "--tasks=2", "--dry_run", "--", "--mixed_precision", "bf16"], capfd)
    assert text.count("\n") == 1
    assert "ACCELERATE_MIXED_PRECISION=bf16" in text
    assert text.endswith(f"--nproc-per-node 2 {local.TRAIN} mrpc --mixed_precision bf16\n")


def test_every_launcher_accepts_predict_as_first_argument(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\na\n", encoding="ascii")
    arguments = ["--test_file", "new.csv", "--output_dir", "out"]
    assert planned(["local", "predict", "--dry_run", "--", *arguments], capfd).endswith(
        f"{local.TRAIN} predict --test_file new.csv --output_dir out\n"
    )
    assert make.local_argv({"RECIPE": "predict", "ARGS": "--test_file new.csv"})[:2] == ["local", "predict"]
    assert planned(["docker", "predict", "--dry_run", "--", *arguments], capfd).endswith(
        " muster predict --test_file new.csv --output_dir out\n"
    )
    words = [sys.executable, "-m", "launch.image", "predict"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing to predict: ")


def test_with_no_arguments_the_demo_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert planned(["local", "--dry_run"], capfd).endswith(f"{local.TRAIN}\n")


def test_a_closed_pipe_does_not_change_the_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in `muster sweep --local ... | head -1`, whose runs were stopped."""

    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return out.fileno()

    monkeypatch.setitem(cli.VERBS, "recipes", replace(cli.VERBS["recipes"], run=lambda _: 75))
    monkeypatch.setattr(sys, "stdout", Closed())
    with (tmp_path / "out").open("w") as out:
        assert cli.main(["recipes"]) == 75


@pytest.mark.parametrize(
    ("redirection", "code", "stderr"),
    [(">&-", 0, ""), (">/dev/full", 1, "error: the output cannot be written: No space left on device\n")],
)
def test_a_stdout_that_is_closed_or_full_is_no_traceback(
    redirection: str, code: int, stderr: str, tmp_path: Path
) -> None:
    command = f'exec "{sys.executable}" -m launch recipes {redirection}'
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (code, stderr)


def test_a_name_that_the_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "runs" / "日本").mkdir(parents=True)
    (tmp_path / "runs" / "日本" / "status.json").write_text('{"state": "DONE"}', encoding="ascii")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    assert cli.main(["status"]) == 0
    assert b"\n\\u65e5\\u672c  " in written.getvalue()


def test_help_of_the_job_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert "--learning_rate" in shown(["local", "--", "--help"], capfd)


def test_recipes_are_listed_with_their_description(capfd: pytest.CaptureFixture[str]) -> None:
    lines = planned(["recipes"], capfd).splitlines()
    names = (
        "cola deberta-v3 deberta-v3-lora demo modernbert mrpc multilingual predict qwen3-0.6b-lora sst2 stsb xlm-r yelp"
    )
    assert [line.split()[0] for line in lines] == names.split()
    assert all(len(line.split()) > 3 for line in lines)


def test_dotenv_applies(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is restored afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / ".env").write_text("OMP_NUM_THREADS=7\nHF_TOKEN=hf_canary\n", encoding="ascii")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    text = planned(["local", "--tasks", "2", "--dry_run"], capfd)
    assert "OMP_NUM_THREADS=7" in text
    assert "canary" not in text


# ---------------------------------------------------------------------------------------------------------------------
# `make train`: the same through environment variables


def test_make_variables_become_arguments() -> None:
    environ = {"RECIPE": "mrpc", "GPUS": "2", "TASKS": "", "ARGS": "--learning_rate 3e-5 --train_file 'a b'"}
    assert make.local_argv({**environ, "DRY_RUN": "1"}) == [
        *("local", "mrpc", "--gpus=2", "--tasks=", "--dry_run", "--"),
        *("--learning_rate", "3e-5", "--train_file", "a b"),
    ]
    assert make.local_argv({}) == ["local", "--gpus=", "--tasks=", "--"]
    assert make.docker_argv({"RECIPE": "mrpc", "IMAGE": "a b"}) == ["docker", "mrpc", "--gpus=", "--image=a b", "--"]


MAKE_REJECTED = {
    ("RECIPE", "--dry_run"): "RECIPE must be a recipe or a YAML file, not '--dry_run': put flags into ARGS",
    ("RECIPE", "--"): "RECIPE must be a recipe or a YAML file",
    ("RECIPE", "demo;touch X"): "no recipe demo;touch X: choose one of",
    ("RECIPE", "$(touch X)"): "no recipe $(touch X): choose one of",
    ("RECIPE", "a\nb"): "no recipe a b: choose one of",
    ("GPUS", "4;touch X"): "--gpus takes an integer, not '4;touch X'",
    ("GPUS", "-1"): "--gpus takes an integer, not '-1'",
    ("GPUS", "1 --dry_run"): "--gpus takes an integer, not '1 --dry_run'",
    ("TASKS", "abc"): "--tasks takes an integer, not 'abc'",
    ("TASKS", "`touch X`"): "--tasks takes an integer, not '`touch X`'",
    ("ARGS", "--train_file 'a"): "ARGS cannot be split into arguments: no closing quotation in",
    ("ARGS", "--seed '$(touch X)'"): "--seed takes an integer, not '$(touch X)'",
    ("ARGS", "; touch X"): "no recipe ;: choose one of",
    ("ARGS", "--train_file x.csv && touch X"): "unrecognized",
    ("ARGS", "-- --gpus 3"): "",
    ("DRY_RUN", "ture"): "DRY_RUN must be 1 or unset, not 'ture'",
}


@pytest.mark.parametrize("case", MAKE_REJECTED, ids=" ".join)
def test_make_values_are_not_evaluated(
    case: tuple[str, str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert make.main({"DRY_RUN": "1", case[0]: case[1]}) == 2
    out, stderr = capfd.readouterr()
    assert out == ""
    assert re.fullmatch("error: .*\n", stderr)
    assert stderr.startswith(f"error: {MAKE_REJECTED[case]}")
    assert not (tmp_path / "X").exists()


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        ("cancel", "DRY_RUN", "1"),
        ("train", "NODES", "2"),
        ("train", "GRID", "seed=1,2"),
        ("docker-run", "TASKS", "2"),
        ("submit", "IMAGE", "mine"),
    ],
)
def test_a_variable_that_a_target_does_not_use_is_rejected(
    target: str, name: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert make.main({"RUN": "x" if target == "cancel" else "", name: value}, target) == 2
    assert capfd.readouterr().err.startswith(f"error: {name} does not apply to {target}, which takes ")


@pytest.mark.parametrize("target", make.TARGETS)
def test_a_target_passes_on_the_variables_that_it_takes(target: str) -> None:
    known = make.TARGETS[target]
    run = {"RUN": "a b"} if target == "compare" else {"RUN": "a"} if target == "rerun" else {}
    for name in make.VARIABLES:
        value = "c d" if (target, name) == ("compare", "RUN") else "1"
        passed = known.argv({**run, name: value}) != known.argv(run)
        assert passed == (name in known.variables), name


def test_every_variable_of_the_makefile_reaches_the_launcher() -> None:
    listed = dict(
        re.findall(r"^(LAUNCHER|VERBS) := (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(listed["LAUNCHER"].split()) == set(make.VARIABLES)
    assert set(listed["VERBS"].split()) == set(make.TARGETS)


def test_a_switch_that_is_off_counts_as_unset(capfd: pytest.CaptureFixture[str]) -> None:
    assert make.main({"DRY_RUN": "0", "RUN": "--x"}, "status") == 2
    assert "RUN must name runs" in capfd.readouterr().err


@given(st.dictionaries(st.sampled_from(["RECIPE", "GPUS", "TASKS", "ARGS"]), st.text()))
def test_launcher_flags_come_only_from_their_variables(environ: dict[str, str]) -> None:
    try:
        argv = make.local_argv(environ)
    except make.Refused:
        return
    own = argv[: argv.index("--")]
    assert own[0] == "local"
    assert own[-2:] == [f"--gpus={environ.get('GPUS', '')}", f"--tasks={environ.get('TASKS', '')}"]
    assert all(not word.startswith("-") for word in own[:-2])


# ---------------------------------------------------------------------------------------------------------------------
# As the user starts it


@pytest.mark.parametrize(("module", "code"), [("launch", 2), ("launch.make", 0)])
def test_the_modules_run(module: str, code: int) -> None:
    environ = {**os.environ, "DRY_RUN": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", module], env=environ, capture_output=True, text=True)
    assert done.returncode == code
    assert len((done.stdout + done.stderr).splitlines()) == 1


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    """By a whole dry run, not only by the import: that is what a login node does."""
    code = (
        "import sys; from launch import cli; cli.main(['local', 'mrpc', '--dry_run']); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
