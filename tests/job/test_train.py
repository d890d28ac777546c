"""The entrypoint as users start it: real processes, a tiny random-weight model, files made on the spot."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import f1_score, log_loss

from job import train as job_train
from job.runtime import contract, environment
from tests.support.interrupted import World
from tests.support.launch import ROOT, TRAIN, Finished, alone, cold, run, torchrun

WORLD = {"rows": 200, "evaluated": 103}


def flags(world: World, **changes: object) -> list[str]:
    values: dict[str, object] = {
        "model_name_or_path": world.folder / "model",
        "train_file": world.folder / "train.csv",
        "validation_file": world.folder / "eval.csv",
        "learning_rate": 1e-2,
        "num_train_epochs": 2,
        "logging_steps": 2,
    }
    values |= changes
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def train(world: World, out: Path, *more: str, **changes: object) -> Finished:
    arguments = [*flags(world, output_dir=out, **changes), *more]
    done = alone(TRAIN, *arguments, env=world.environment(), cwd=world.folder)
    out.with_name(f"{out.name}.log").write_text(done.stderr)
    return done


@pytest.fixture(scope="module")
def finished(world: World) -> Path:
    """The folder of a finished run."""
    out = world.folder / "finished"
    train(world, out, "--report_to", "tensorboard").expect(0)
    return out


def test_a_run_folder_has_exactly_the_documented_files(finished: Path) -> None:
    there = {path.name for path in finished.iterdir()}
    assert there == {".lock", "config.yaml", "manifest.json", "metrics.jsonl", "results.json", "predictions.parquet",
                     "model", "status.json", "tensorboard", "report.html", "report"}  # fmt: skip
    status = json.loads((finished / "status.json").read_text())
    assert (status["state"], status["step"]) == ("DONE", status["steps"])
    assert list((finished / "tensorboard").rglob("events.*"))
    os.umask(mask := os.umask(0o022))
    assert (finished / "model" / "model.safetensors").stat().st_mode & 0o077 == 0o044 & ~mask


def test_the_report_of_a_run_shows_score_and_time(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    results = json.loads((finished / "results.json").read_text())
    assert f"accuracy {results['eval']['accuracy']:.4f}" in page
    phases = json.loads((finished / "manifest.json").read_text())["seconds"]
    assert list(phases) == ["data", "model", "evaluation", "results"]
    assert all(seconds > 0 for seconds in phases.values())
    for phase in ("reading and tokenizing the data", "loading the model", "evaluation", "writing the results"):
        assert f">{phase}</th>" in page


def test_a_known_model_is_packed_and_the_log_says_so(finished: Path) -> None:
    assert said_of_the_form(finished) == "packed"


def test_the_reason_for_padding_is_logged(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(world, out, "--no_packing", model_name_or_path=world.folder / "model", max_steps=1).expect(0)
    assert said_of_the_form(out) == "padded: --no_packing"


def said_of_the_form(out: Path) -> str:
    """What the run's log and manifest say of its forward pass."""
    reasons = re.findall(r"INFO forward  (.*)$", (out.parent / f"{out.name}.log").read_text(), re.MULTILINE)
    assert reasons == [json.loads((out / "manifest.json").read_text())["forward"]]
    return reasons[0]


@pytest.mark.long
def test_the_number_of_compiled_graphs_does_not_grow_with_the_shapes(world: World, tmp_path: Path) -> None:
    """One for training, one for evaluation, and for either another where a micro-batch has a single row."""
    arguments = flags(world, output_dir=tmp_path / "out", max_tokens_per_device=64, eval_max_tokens_per_device=64)
    worker, counts = Path(__file__).parent / "workers" / "compiled.py", tmp_path / "counts.json"
    alone(worker, str(counts), *arguments, env=world.environment(), cwd=world.folder).expect(0)
    actual = json.loads(counts.read_text())
    assert 2 <= actual["graphs"] <= 4
    assert not actual["breaks"], "a model in pieces is compiled piece by piece"


def test_metrics_are_lines_of_training_and_evaluation(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = -(-200 // 32) * 2
    assert [line["step"] for line in lines if line["split"] == "train"] == [*range(2, steps + 1, 2)]
    assert [line["step"] for line in lines if line["split"] == "eval"] == [7, 14]
    training = next(line for line in lines if line["split"] == "train")
    assert {"epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "examples_per_second",
            "padding_fraction"} <= set(training)  # fmt: skip
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_results_agree_with_scikit_learn_on_the_predictions(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    table = pq.read_table(finished / "predictions.parquet").to_pandas()
    assert list(table.columns[:3]) == ["index", "label", "prediction"]
    assert table["index"].tolist() == list(range(103))
    with (finished.parent / "eval.csv").open(encoding="utf-8") as file:
        assert table["label"].tolist() == [row["category"] for row in csv.DictReader(file)]
    evaluated = results["eval"]
    assert evaluated["correct"] == (table["label"] == table["prediction"]).sum()
    assert evaluated["f1_macro"] == f1_score(table["label"], table["prediction"], average="macro")
    assert sum(map(sum, evaluated["confusion_matrix"])) == evaluated["examples"] == 103
    assert set(evaluated["per_class"]) == {"animal", "color", "food"}
    assert 0.6 < evaluated["accuracy"] < 1, "most can be learnt, the random labels can not"
    assert results["train"]["examples"] == 400


def test_the_model_returns_label_names_in_a_plain_pipeline(finished: Path) -> None:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(finished / "model"))
    table = pq.read_table(finished / "predictions.parquet").to_pandas()
    with (finished.parent / "eval.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    answers = classify(texts[:20])
    assert [answer["label"] for answer in answers] == table["prediction"][:20].tolist()
    card = (finished / "model" / "README.md").read_text()
    assert "`animal`, `color`, `food`" in card
    assert "pipeline_tag" in card


def test_config_yaml_repeats_the_run_exactly(world: World, finished: Path) -> None:
    again = world.folder / "again"
    arguments = [str(finished / "config.yaml"), "--output_dir", str(again), "--report_to"]
    alone(TRAIN, *arguments, env=world.environment(), cwd=world.folder.parent).expect(0)
    assert (again / "predictions.parquet").read_bytes() == (finished / "predictions.parquet").read_bytes()
    one, other = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (finished, again))
    assert one | {"report_to": []} == other


def test_restarting_a_finished_run_reports_that_and_changes_nothing(world: World, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = train(world, finished).expect(0)
    assert "has already finished" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_another_configuration_in_the_same_folder_is_rejected_with_the_settings_that_differ(
    world: World, finished: Path
) -> None:
    done = train(world, finished, learning_rate=1e-3).expect(2)
    assert len(done.errors) == 1
    assert "learning_rate" in done.errors[0]
    assert (finished / "results.json").is_file()


def test_class_weights_are_logged_recorded_and_identify_a_run(world: World, tmp_path: Path) -> None:
    out, file, weights = tmp_path / "out", tmp_path / "w.yaml", {"animal": 9.0, "color": 1.0, "food": 0.5}
    file.write_text(yaml.safe_dump(weights))
    done = train(world, out, class_weights=file, max_steps=4).expect(0)
    assert "INFO weights  food 0.5, color 1, animal 9\n" in done.stderr
    assert json.loads((out / "manifest.json").read_text())["class_weights"] == weights
    assert yaml.safe_load((out / "config.yaml").read_text())["class_weights"] == weights
    table = pq.read_table(out / "predictions.parquet").to_pandas()
    unweighted = log_loss(table["label"], table[[f"probability_{name}" for name in weights]])
    assert json.loads((out / "results.json").read_text())["eval"]["loss"] == pytest.approx(unweighted, rel=1e-5)
    file.write_text(yaml.safe_dump({**weights, "animal": 8.0}))
    rejected = train(world, out, class_weights=file, max_steps=4).expect(2)
    assert len(rejected.errors) == 1 and "class_weights" in rejected.errors[0]
    file.write_text("animal: 1\nfish: 2\n")
    rejected = train(world, tmp_path / "no", class_weights=file).expect(2)
    assert rejected.errors == ["error: --class_weights names fish, not among the classes: animal, color, food"]


def test_evaluation_alone_gives_the_same_predictions_on_one_two_and_three_processes(
    world: World, finished: Path
) -> None:
    expected = (finished / "predictions.parquet").read_bytes()
    for processes in (1, 2, 3):
        out = world.folder / f"evaluated{processes}"
        arguments = ["--no_do_train", "--model_name_or_path", str(finished / "model"),
                     "--validation_file", str(world.folder / "eval.csv"), "--output_dir", str(out)]  # fmt: skip
        torchrun(processes, TRAIN, *arguments, env=world.environment(), cwd=world.folder).expect(0)
        assert json.loads((out / "manifest.json").read_text())["world_size"] == processes
        assert (out / "predictions.parquet").read_bytes() == expected
        assert not (out / "model").exists()


def test_the_best_model_is_kept_and_patience_ends_the_run(world: World) -> None:
    out = world.folder / "patience"
    train(world, out, eval_strategy="steps", eval_steps=2, early_stopping_patience=2, num_train_epochs=20,
          learning_rate=2e-2, metric_for_best_model="loss").expect(0)  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["split"] == "eval"}
    results = json.loads((out / "results.json").read_text())
    assert results["best_step"] == min(losses, key=lambda step: (losses[step], step))
    assert results["eval"]["loss"] == min(losses.values())
    assert max(losses) == results["train"]["steps"] == results["best_step"] + 2 * 2 < 140
    check = world.folder / "patience-check"
    arguments = ["--no_do_train", "--model_name_or_path", str(out / "model"), "--validation_file",
                 str(world.folder / "eval.csv"), "--output_dir", str(check)]  # fmt: skip
    alone(TRAIN, *arguments, env=world.environment(), cwd=world.folder).expect(0)
    assert json.loads((check / "results.json").read_text())["eval"]["loss"] == pytest.approx(min(losses.values()))


def test_a_long_evaluation_row_is_rejected_before_training(world: World) -> None:
    out = world.folder / "long-row"
    done = train(world, out, eval_max_tokens_per_device=4).expect(2)
    assert "of the evaluation set has" in done.errors[0] and "--eval_max_tokens_per_device 4" in done.errors[0]
    assert not (out / "metrics.jsonl").exists() and not (out / "checkpoints").exists()


@pytest.mark.parametrize(("local_rank", "lines"), [("0", 1), ("1", 0)])
def test_an_error_before_the_processes_join_is_printed_once_on_each_machine(
    world: World, local_rank: str, lines: int
) -> None:
    """Here on the second machine: the first one knows nothing of it."""
    env = world.environment(RANK="2", LOCAL_RANK=local_rank, WORLD_SIZE="4")
    done = alone(TRAIN, "--train_file", "nowhere.csv", env=env, cwd=world.folder).expect(2)
    assert len(done.errors) == lines


@pytest.mark.parametrize("traceback", ["", "1"])
def test_a_failed_exchange_is_explained_with_its_cause(
    traceback: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def join(*_: object) -> None:
        raise torch.distributed.DistBackendError("NCCL error,\nno interface eth7")

    monkeypatch.setenv(contract.TRACEBACK, traceback)
    for module, name in (
        (job_train.signals, "install"),
        (job_train.environment, "prepare"),
        (job_train.checks, "check"),
    ):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(job_train, "_join", join)
    assert job_train.main(["--train_file", "train.csv"]) == 1
    written = capsys.readouterr().err
    assert written.splitlines()[-1] == (
        "error: another process died or cannot be reached (NCCL error, no interface eth7); start all processes again"
    )
    assert ("Traceback" in written) == bool(traceback)


@pytest.fixture(scope="module")
def diverged(world: World) -> tuple[Finished, Path]:
    """A run of two processes that saves after each step, and whose second loss is not finite; and its folder."""
    out = world.folder / "nan"
    arguments = flags(world, output_dir=out, learning_rate=9e15, warmup_ratio=0, max_grad_norm=0, save_steps=1)
    return torchrun(2, TRAIN, *arguments, env=world.environment(), cwd=world.folder), out


def test_non_finite_loss_ends_all_processes_naming_step_and_rows(diverged: tuple[Finished, Path]) -> None:
    done, out = diverged
    assert done.code == 1
    assert len(done.errors) == 1
    assert "loss of step 2 is not finite for rows " in done.errors[0]
    assert not {"results.json", "model", "predictions.parquet"} & {path.name for path in out.iterdir()}
    assert json.loads((out / "status.json").read_text())["state"] == "FAILED"


def test_the_state_of_a_step_with_a_non_finite_loss_is_not_saved(diverged: tuple[Finished, Path]) -> None:
    assert [path.name for path in (diverged[1] / "checkpoints").iterdir()] == ["step-00000001"]


def test_processes_draw_different_dropout(diverged: tuple[Finished, Path]) -> None:
    states = load_file(diverged[1] / "checkpoints" / "step-00000001" / "rng.safetensors")
    assert not torch.equal(states["0.torch"], states["1.torch"])


@pytest.mark.parametrize(
    ("what", "changes", "words"),
    [
        ("flag", {"trian_file": "x"}, "unknown flag --trian_file; did you mean --train_file?"),
        ("model", {"model_name_or_path": "no/such-model"}, "here, and from the hub it cannot be loaded: "),
        ("label", {"validation_file": "odd.csv"}, "label 'mineral' is not one of the 3 classes"),
    ],
)  # fmt: skip
def test_a_mistake_ends_all_processes_with_one_line_and_no_results(
    world: World, what: str, changes: dict[str, object], words: str
) -> None:
    (world.folder / "odd.csv").write_text("id,text,category\n1,a cat,animal\n2,a stone,mineral\n", encoding="utf-8")
    out = world.folder / f"mistake-{what}"
    done = torchrun(2, TRAIN, *flags(world, output_dir=out, **changes), env=world.environment(), cwd=world.folder)
    assert done.code == 1, "torchrun makes every failure a 1"
    assert len(done.errors) == 1, done.stderr
    assert words in done.errors[0]
    assert "job/" not in done.stderr.replace("job/train.py", ""), "no traceback of ours"
    assert not out.exists() or not {"results.json", "model"} & {path.name for path in out.iterdir()}


def test_a_rejection_exits_with_2_and_writes_it_to_the_launchers_file(world: World) -> None:
    code = world.folder / "code"
    env = world.environment(MUSTER_EXIT_CODE_FILE=str(code))
    done = cold(TRAIN, *flags(world, train_file="nowhere.csv"), env=env, cwd=world.folder).expect(2)
    assert code.read_text() == "2"
    assert done.stderr.count("\n") == 1


def test_bare_accelerate_launch_in_a_users_folder_runs_the_checkouts_code_installed_or_not(
    world: World, tmp_path: Path
) -> None:
    """With that code's own recipes, metrics and .env."""
    code, here = tmp_path / "code", tmp_path / "here"
    here.mkdir()
    shutil.copytree(ROOT / "job", code / "job", ignore=shutil.ignore_patterns("__pycache__"))
    (code / "job" / "recipes" / "own.yaml").write_text("# A recipe of this copy\nmax_steps: 1\nmetrics: [accuracy]\n")
    (code / ".env").write_text(f"{contract.IMAGE_DIGEST}=of-this-copy\n")
    sources = (code / "job").rglob("*.py")
    marked = next(path for path in sources if "next, with other data" in path.read_text(encoding="utf-8"))
    marked.write_text(marked.read_text(encoding="utf-8").replace("next, with other data", "next, printed by this copy"))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(code / "job" / "train.py"), "own"]
    arguments = flags(world, output_dir=tmp_path / "out")
    env = world.environment()
    del env["OMP_NUM_THREADS"]
    done = run([*command, *arguments], env, here, 300).expect(0)
    assert "next, printed by this copy" in done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["train"]["steps"] == 1
    assert 0 <= results["eval"]["accuracy"] <= 1
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["image"] == "of-this-copy"
    assert manifest["threads"] == environment.cores(), "accelerate's own choice is one thread"


def test_train_can_be_called_from_a_notebook(world: World) -> None:
    out = world.folder / "notebook"
    cell = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from accelerate import notebook_launcher
from job.config import parse
from job.train import train
config = parse({flags(world, output_dir=out, max_steps=2)!r})
notebook_launcher(train, (config,), num_processes=1)
"""
    (world.folder / "cell.py").write_text(cell)
    alone(world.folder / "cell.py", env=world.environment(), cwd=world.folder).expect(0)
    assert json.loads((out / "results.json").read_text())["train"]["steps"] == 2


def test_precision_comes_from_the_launcher_unless_the_flag_says_otherwise(world: World) -> None:
    env = world.environment(ACCELERATE_MIXED_PRECISION="bf16")
    launched = alone(
        TRAIN, *flags(world, output_dir=world.folder / "bf16", max_steps=1), env=env, cwd=world.folder
    ).expect(0)
    arguments = [*flags(world, output_dir=world.folder / "fp32", max_steps=1), "--mixed_precision", "no"]
    assert "precision bf16" in launched.stderr
    assert "precision no" in alone(TRAIN, *arguments, env=env, cwd=world.folder).expect(0).stderr


def test_no_connection_is_made_when_offline(world: World) -> None:
    watched = f"""
import runpy, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo") and not str(arguments[-1]).startswith("/"):
        print("CONNECTION", event, arguments, file=sys.stderr)
sys.addaudithook(refuse)
sys.argv[0] = {str(TRAIN)!r}
sys.path.insert(0, {str(TRAIN.parent)!r})
runpy.run_path({str(TRAIN)!r}, run_name="__main__")
"""
    script = world.folder / "watched.py"
    script.write_text(watched)
    arguments = flags(world, output_dir=world.folder / "offline", max_steps=1)
    done = cold(script, *arguments, env=world.environment(), cwd=world.folder).expect(0)
    assert "CONNECTION" not in done.stderr
