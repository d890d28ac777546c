"""Every message with exit code 2 that needs no model: provoked as by a user, and recorded in one file."""

import ast
import errno
import gzip
import importlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType

import pytest

from job import checks, config
from job.config import task_settings
from job.config.tasks import SINGLE_LABEL, Task
from job.data import readers, sources
from job.errors import Refused
from job.run import folder as run_folder
from job.runtime import environment
from tests.job import snapshots

TABLE = "text,label\na,b\n"
SOURCES = "--train_file train.csv --validation_file eval.csv"
MODULES = (
    "job.config.class_weights",
    "job.config.cli",
    "job.config.flat",
    "job.config.values",
    "job.checks",
    "job.errors",
    "job.data.columns",
    "job.data.folders",
    "job.data.parquet_tables",
    "job.data.readers",
    "job.data.sources",
    "job.data.text_tables",
    "job.data.texts",
    "job.runtime.environment",
    "job.run.folder",
)


def command_line(words: str) -> None:
    checks.check(config.parse(shlex.split(words)))


def unreadable(words: str) -> None:
    Path("unreadable.csv").symlink_to("/proc/self/mem")  # root may read any file, but not this one from its start
    command_line(words)


def not_allowed(words: str) -> None:
    """Where nobody may look into the folder `theirs`; root may, so it is simulated."""
    look = Path.stat

    def denied(path: Path, **options: bool) -> os.stat_result:
        if "theirs" in path.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Path, "stat", denied)
        command_line(words)


def rows(path: str) -> None:
    list(readers.rows(path, ["text", "label"]))


def training_data(words: str) -> None:
    """Read the training data in a folder that also has these binary files and folders."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    for name, texts in {"numbers": [1, 2], "null": ["a", None], "empty": ["a", " "], "broken": ["a", "b"]}.items():
        pq.write_table(pa.table({"text": texts, "label": [0, 1]}), f"{name}.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), "types0.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": ["01"]}), "types1.parquet")
    content = Path("broken.parquet").read_bytes()
    Path("broken.parquet").write_bytes(content[:4] + bytes(50) + content[54:])  # behind a schema in good order
    for number, names in enumerate((["no", "yes"], ["yes", "no"])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        Dataset.from_dict({"text": ["a"], "label": [0]}, features=features).to_parquet(f"classes{number}.parquet")
    Dataset.from_parquet("empty.parquet").save_to_disk("saved")
    one = Dataset.from_parquet("empty.parquet")
    DatasetDict({"train": one, "validation_matched": one, "validation_mismatched": one}).save_to_disk("several")
    DatasetDict({"train": one.select([])}).save_to_disk("no_rows")
    one.save_to_disk("damaged_split")
    Path("damaged_split/state.json").write_text("{}")
    for name in ("en", "de"):
        Path("languages", name).mkdir(parents=True)
        Path("languages", name, "train.csv").write_text(TABLE)
    files = "".join(f"- {{config_name: {name}, data_files: {name}/train.csv}}\n" for name in ("en", "de"))
    Path("languages/README.md").write_text(f"---\nconfigs:\n{files}---\n")
    Path("damaged").mkdir()
    Path("damaged/dataset_dict.json").write_text("[]")
    settings = config.parse(shlex.split(words))
    checks.check(settings)
    sources.read(settings.data, ("train", "validation"))


def output_dir(words: str) -> None:
    settings = config.parse(shlex.split(words))
    run_folder.claim(run_folder.RunFolder(Path(str(settings.run.output_dir)).absolute()), settings)


def new_run(name: str) -> None:
    run_folder.make_new(name)


def new_run_in_a_link_to_nothing(name: str) -> None:
    Path("runs").symlink_to("nowhere")
    run_folder.make_new(name)


def full_disk(weights: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
        run_folder.require_space(run_folder.RunFolder(Path.cwd()), int(weights), int(weights))


def launched_with(words: str) -> None:
    environment.refuse_launcher_plans(dict(word.split("=") for word in shlex.split(words)))


def dotenv(_: str) -> None:
    environment.load_dotenv()


def of_colors(words: str) -> None:
    """Checks that need the labels."""
    task_settings.check(config.parse(shlex.split(words)), Task(SINGLE_LABEL, ("red", "green")))


def online_without_a_token(words: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in (*environment.OFFLINE, environment.HUB_TOKEN):
            monkeypatch.delenv(name, raising=False)
        command_line(words)


@dataclass(frozen=True)
class Case:
    """An action in a folder with these files, in addition to a valid train.csv and eval.csv."""

    words: str
    files: dict[str, str | bytes] = field(default_factory=dict)
    act: Callable[[str], None] = command_line

    def __str__(self) -> str:
        holding = "".join(f"\n  {name}: {content!r}" for name, content in self.files.items())
        return f"{self.act.__name__}: {self.words}{holding}"


def table(content: str | bytes, name: str = "train.csv") -> Case:
    return Case(SOURCES, {name: content})


UNFINISHED = {"run/checkpoints/step-00000003/state.json": "{}"}
CASES = [
    # Flags
    Case("--epochs 3"),
    Case("--weight_decays 3"),
    Case("--per_device_train_batch_size 8"),
    Case("--fp16"),
    Case("--seed abc"),
    Case("--seed 1.5"),
    Case("--seed"),
    Case("--learning_rate fast"),
    Case("--do_train maybe"),
    Case("-x"),
    Case("--do_predict"),
    Case("--hub_token x"),
    Case(f"{SOURCES} --text_column_names a --text_column_names b"),
    Case(f"{SOURCES} --class_weights a 1 --class-weights=b 2"),
    # Uploads
    Case(f"{SOURCES} --hub_model_id ada/colors"),
    Case(f"{SOURCES} --push_to_hub --no_do_train"),
    Case(f"{SOURCES} --push_to_hub --hub_model_id runs/one/model"),
    Case(f"{SOURCES} --push_to_hub"),
    Case(f"{SOURCES} --push_to_hub", act=online_without_a_token),
    # Recipes
    Case("mrpk"),
    Case("mrpc cola"),
    Case("own.yaml"),
    Case("own.yaml", {"own.yaml": "learning_rate: [1\n"}),
    Case("own.yaml", {"own.yaml": b"text: \xfc\n"}),
    Case("own.yaml", {"own.yaml": "- a\n"}),
    Case("own.yaml", {"own.yaml": "seed: 1\nmax_steps: 5\nseed: 2\n"}),
    Case("own.yaml", {"own.yaml": "class_weights: {a: 1, b: 1, a: 2}\n"}),
    Case("own.yaml", {"own.yaml": "learning_rat: 1\n"}),
    Case("own.yaml", {"own.yaml": "lr: 1\n"}),
    Case("own.yaml", {"own.yaml": "seed: many\n"}),
    Case("own.yaml", {"own.yaml": "learning_rate: fast\n"}),
    Case("own.yaml", {"own.yaml": f"learning_rate: {'9' * 400}\n"}),
    Case("own.yaml", {"own.yaml": "seed: 2026-13-01\n"}),
    Case("own.yaml", {"own.yaml": "overwrite_output_dir: true\n"}),
    Case("own.yaml", {"own.yaml": "seed: !mine 3\n"}),
    Case("own.yaml", {"own.yaml": "do_train: 1\n"}),
    Case("own.yaml", {"own.yaml": "max_steps: 1.5\n"}),
    Case("own.yaml", {"own.yaml": "metrics: [1]\n"}),
    Case("own.yaml", {"own.yaml": "lr_scheduler_type: round\n"}),
    # Settings that cannot work
    Case(f"{SOURCES} --train_batch_size 0"),
    Case(f"{SOURCES} --seed -1"),
    Case(f"{SOURCES} --seed {2**32}"),
    Case(f"{SOURCES} --seed {'9' * 400}"),
    Case(f"{SOURCES} --max_steps {2**53 + 1}"),
    Case(f"{SOURCES} --num_train_epochs 1e308"),
    Case(f"{SOURCES} --learning_rate 1e308"),
    Case(f"{SOURCES} --lr_scheduler_type constant --warmup_steps 5"),
    Case(f"{SOURCES} --max_steps 5 --warmup_steps 5"),
    Case(f"{SOURCES} --max_predict_samples 5"),
    Case(f"{SOURCES} --dataset_config_name cola"),
    Case(f"{SOURCES} --dataset_revision v1"),
    Case(f"{SOURCES} --train_split_name part"),
    Case("--dataset_name docstrings --dataset_config_name cola"),
    Case("--dataset_name docstrings --dataset_revision v1"),
    Case("--dataset_name d --dataset_revision v1", {"d/train.csv": TABLE}),
    Case("--dataset_name d[1]", {"d[1]/train.csv": TABLE}),
    Case("--dataset_name theirs/data", act=not_allowed),
    Case("--model_name_or_path theirs/model", act=not_allowed),
    Case("theirs/recipe.yaml", act=not_allowed),
    Case(f"{SOURCES} --layer_lr_decay 0"),
    Case(f"{SOURCES} --layer_lr_decay 1.1"),
    Case(f"{SOURCES} --lora_rank -1"),
    Case(f"{SOURCES} --lora_rank 8 --lora_alpha 0"),
    Case(f"{SOURCES} --lora_rank 8 --lora_dropout 1"),
    Case(f"{SOURCES} --lora_alpha 16"),
    Case(f"{SOURCES} --lora_dropout 0.1"),
    Case(f"{SOURCES} --no_do_train --lora_rank 8"),
    Case(f"{SOURCES} --max_predict_samples -5"),
    Case(f"{SOURCES} --max_predict_samples 0"),
    Case(f"{SOURCES} --learning_rate nan"),
    Case(f"{SOURCES} --class_weights balance"),
    Case(f"{SOURCES} --class_weights balanced --problem_type regression"),
    Case(f"{SOURCES} --class_weights no.yaml"),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: [\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "- a\n- b\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": ""}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: 1\na: 2\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: much\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: [1]\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: 1\nb: -2\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: .inf\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: .nan\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: 1e39\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: 1e-46\n"}),
    Case(f"{SOURCES} --class_weights w.yaml", {"w.yaml": "a: 0\nb: 0\n"}),
    Case(f"{SOURCES} --class_weights"),
    Case(f"{SOURCES} --class_weights a b"),
    Case(f"{SOURCES} --class_weights a 1 b 1 a 2"),
    Case(f"{SOURCES} --class-weights=a 1 a 2"),
    Case("--class_weights red 1 blue 2", act=of_colors),
    Case("--class_weights red 1", act=of_colors),
    Case("own.yaml", {"own.yaml": "class_weights: {a: x}\n"}),
    Case("own.yaml", {"own.yaml": "class_weights: 3\n"}),
    Case(f"{SOURCES} --num_train_epochs inf"),
    Case(f"{SOURCES} --max_grad_norm inf"),
    Case(f"{SOURCES} --warmup_ratio 1"),
    Case(f"{SOURCES} --metric_for_best_model f1_makro"),
    Case(f"{SOURCES} --metrics accuracy --metric_for_best_model f1_macro"),
    Case(f"{SOURCES} --max_seq_length 128 --max_tokens_per_device 100"),
    Case(f"{SOURCES} --eval_strategy steps"),
    Case(f"{SOURCES} --eval_steps 5"),
    Case(f"{SOURCES} --eval_strategy no --early_stopping_patience 2"),
    Case(f"{SOURCES} --attention_dropout 1.5"),
    Case(f"{SOURCES} --step_timeout_minutes -1"),
    Case(f"{SOURCES} --resume_from_checkpoint nowhere/step-00000002"),
    Case(
        f"{SOURCES} --output_dir run --overwrite_output_dir --resume_from_checkpoint run/checkpoints/step-00000003",
        {**UNFINISHED},
    ),
    # Models in a folder
    Case(f"{SOURCES} --model_name_or_path run/model", {"run/status.json": '{"state": "QUEUED"}'}),
    Case(f"{SOURCES} --model_name_or_path ./model"),
    Case(f"{SOURCES} --model_name_or_path runs/mine/model"),
    Case(f"{SOURCES} --model_name_or_path runs/model", {"runs/notes.txt": ""}),
    Case(f"{SOURCES} --model_name_or_path run", {"run/model/config.json": "{}"}),
    Case(f"{SOURCES} --model_name_or_path mine", {"mine/adapter_config.json": "{}"}),
    Case(
        f"{SOURCES} --model_name_or_path run/adapter",
        {"run/adapter/adapter_config.json": "{}", "run/model/config.json": "{}"},
    ),
    Case(f"{SOURCES} --model_name_or_path model --model_revision v1", {"model/config.json": "{}"}),
    Case(f"{SOURCES} --tokenizer_name ./tokenizer"),
    Case(f"{SOURCES} --model_name_or_path model", {"model/notes.txt": ""}),
    Case(f"{SOURCES} --model_name_or_path model", {"model/config.json": "{"}),
    Case(f"{SOURCES} --model_name_or_path model", {"model/config.json": "{}"}),
    Case(f"{SOURCES} --model_name_or_path model", {"model/config.json": "{}", "model/pytorch_model.bin": ""}),
    Case(
        f"{SOURCES} --model_name_or_path model --max_seq_length 513",
        {"model/config.json": '{"max_position_embeddings": 512}'},
    ),
    # Sources
    Case("--seed 1"),
    Case("--no_do_train"),
    Case("--no_do_train --train_file train.csv --test_file eval.csv"),
    Case(f"predict {SOURCES}"),
    Case("predict --test_file eval.csv --do_train"),
    Case("--dataset_name yelp_review_full --train_file train.csv"),
    Case("--dataset_name yelp_review_full --test_file train.csv"),
    Case(f"{SOURCES} --test_split_name test"),
    Case(f"{SOURCES} --no_label"),
    Case(f"{SOURCES} --output_file answers.csv"),
    Case(f"{SOURCES} --top_k 3"),
    Case("predict --test_file eval.csv --output_file answers.txt"),
    Case("predict --test_file eval.csv --output_file eval.csv"),
    Case("predict --test_file '*.csv' --output_file answers.csv"),
    Case("predict --test_file new.csv --output_file answers.csv", {"new.csv": "text,label,,\na,b,,\n"}),
    Case("predict --test_file eval.csv --output_file d.csv", {"d.csv/a": ""}),
    Case("predict --test_file eval.csv --output_file train.csv/answers.csv"),
    Case("predict --dataset_name d --test_split_name train --output_file d/answers.csv", {"d/train.csv": TABLE}),
    Case("predict --test_file eval.csv --output_dir o --output_file o/predictions.parquet"),
    Case("predict --test_file eval.csv --output_dir o --output_file ./o/report/answers.csv"),
    Case(
        "predict --test_file eval.csv --output_file run/metrics.jsonl",
        {"run/config.yaml": "seed: 1\n", "run/status.json": "{}"},
    ),
    Case(f"{SOURCES} --validation_split_name dev"),
    Case("--train_file no.csv --validation_file eval.csv"),
    Case("--train_file /no/no.csv --validation_file eval.csv"),
    Case("--train_file no.csv"),
    Case(f"{SOURCES} --test_file no.csv"),
    Case("--train_file . --validation_file eval.csv"),
    Case("--train_file 'no/*.csv'"),
    Case("--train_file '/no/*.csv'"),
    Case("--train_file '*.*'", {"a.parquet": ""}),
    Case("--train_file train.txt --validation_file eval.csv", {"train.txt": ""}),
    Case("--train_file train.parquet.gz", {"train.parquet.gz": ""}),
    Case(f"--train_file {'n' * 252}.csv"),
    # Files
    table(""),
    table(b"gr\xfc\xdfe,label\n"),
    table("text,stars\n"),
    table("text,label,class\n"),
    table("words,label\n"),
    table("text,body,label\n"),
    Case(f"{SOURCES} --text_column_names text", {"train.csv": "text,label,text\n"}),
    Case(f"{SOURCES} --text_column_names label --label_column_name label"),
    Case("--train_file unreadable.csv --validation_file eval.csv", act=unreadable),
    Case("--train_file '*.csv'", {"other.csv": "body,label\n"}),
    Case("--train_file '*.tsv'", {"a.tsv": "text\tlabel\n", "b.tsv": "text\ttext_pair\tlabel\n"}),
    Case("predict --test_file '*.tsv'", {"a.tsv": "text\n", "b.tsv": "text\tlabel\n"}),
    Case("--train_file '*.tsv'", {"a.tsv": "body\tstars\tlabel\n", "b.tsv": "stars\tlabel\n"}),
    Case("--train_file a.tsv", {"a.tsv": "text,label\na,b\n"}),
    Case("--train_file a.tsv", {"a.tsv": '"text\tlabel\na\tb\n'}),
    Case("--train_file a.csv.gz", {"a.csv.gz": TABLE}),
    Case("--train_file a.csv.gz", {"a.csv.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\x03"}),
    Case("--train_file a.csv.gz", {"a.csv.gz": ""}),
    Case("--train_file a.json", {"a.json": ""}),
    Case("--train_file a.json", {"a.json": "[]"}),
    Case("--train_file a.json", {"a.json": "[1]"}),
    Case("--train_file a.json", {"a.json": "[{'text': 1}]"}),
    Case("--train_file a.json", {"a.json": '{\n"data": []}'}),
    Case("--train_file a.parquet", {"a.parquet": ""}),
    Case("--train_file a.parquet", {"a.parquet": "text,label\n"}),
    Case(f"{SOURCES} --test_file a.csv --label_column_name label", {"a.csv": "text\n"}),
    Case(f"{SOURCES} --test_file a.csv --text_column_names text", {"a.csv": "body,label\n"}),
    Case(f"{SOURCES} --test_file a.csv", {"a.csv": "body,label\n"}),
    Case("predict --test_file a.csv", {"a.csv": "text,label,class\n"}),
    Case("--train_file train.csv --validation_file a.csv", {"a.csv": "text,class\n"}),
    Case(f"{SOURCES} --text_column_names body"),
    Case(f"{SOURCES} --label_column_name stars"),
    Case(f"{SOURCES} --text_column_names a b c"),
    Case("--train_file a.jsonl --validation_file eval.csv", {"a.jsonl": "\n"}),
    Case("--train_file a.jsonl --validation_file eval.csv", {"a.jsonl": "{'text': 1}\n"}),
    Case("--train_file a.jsonl --validation_file eval.csv", {"a.jsonl": "[]\n"}),
    Case("a.csv", {"a.csv": "text,label\na\n"}, rows),
    Case("a.csv", {"a.csv": "text,label\na,b,c\n"}, rows),
    Case("a.csv", {"a.csv": 'text,label\n"a,b\n'}, rows),
    Case("a.csv", {"a.csv": "text,label\na,b\ntext,label\nc,d\n"}, rows),
    Case("a.tsv", {"a.tsv": 'text\tlabel\n"a\tb\nc\td\ne"\tf\n'}, rows),
    Case("a.jsonl.gz", {"a.jsonl.gz": gzip.compress(b'{"text": ' + b"1" * 5000 + b"}", mtime=0)}, rows),
    Case("a.jsonl", {"a.jsonl": '{"text": "a", "label": 1} 2\n'}, rows),
    Case("a.jsonl", {"a.jsonl": '{"text": "a", "label": 1, "text": "b"}\n'}, rows),
    Case("a.json", {"a.json": '[{"text": "a", "label": 1},\n{"text": "a", "label": 1, "label": 2}]'}, rows),
    Case("a.json", {"a.json": '[{"text": "a", "label": 1}\n'}, rows),
    Case("a.json", {"a.json": '[{"text": "a", "label": 1}]\n]'}, rows),
    # Rows and data sets
    Case(SOURCES, {"train.csv": "text,label\na,b\n ,b\n"}, training_data),
    Case("--train_file a.csv", {"a.csv": "sentence1,sentence2,label\na,,b\n,,b\n"}, training_data),
    Case("--train_file a.jsonl", {"a.jsonl": '{"text": null, "label": 1}\n'}, training_data),
    Case("--train_file a.jsonl", {"a.jsonl": '{"text": 7, "label": 1}\n'}, training_data),
    Case("--train_file a.jsonl", {"a.jsonl": '{"text": "\\ud83d", "label": 1}\n'}, training_data),
    Case(
        "--train_file a.jsonl",
        {"a.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "text_pair": "c", "label": 1}\n'},
        training_data,
    ),
    Case("--train_file null.parquet", act=training_data),
    Case("--train_file empty.parquet", act=training_data),
    Case("--train_file numbers.parquet", act=training_data),
    Case("--train_file broken.parquet", act=training_data),
    Case("--train_file 'classes*.parquet'", act=training_data),
    Case("--train_file 'types*.parquet'", act=training_data),
    Case("--train_file null.parquet --label_column_name stars", act=training_data),
    Case("--dataset_name acme/nothing", act=training_data),
    Case("--dataset_name empty", {"empty/.hidden": ""}, training_data),
    Case("--dataset_name broken", {"broken/train.jsonl": "{"}, training_data),
    Case("--dataset_name scripted", {"scripted/scripted.py": "import datasets\n"}, training_data),
    Case("--dataset_name saved", act=training_data),
    Case("--dataset_name saved --validation_split_name dev", act=training_data),
    Case("--dataset_name saved --dataset_config_name x", act=training_data),
    Case("--dataset_name damaged", act=training_data),
    Case("--dataset_name damaged_split", act=training_data),
    Case("--dataset_name languages", act=training_data),
    Case("--dataset_name languages --dataset_config_name fr", act=training_data),
    Case("--dataset_name several", act=training_data),
    Case("--dataset_name no_rows", act=training_data),
    # The environment
    Case("SLURM_STEP_NUM_TASKS=2", act=launched_with),
    Case("OMPI_COMM_WORLD_SIZE=4 SLURM_STEP_NUM_TASKS=1", act=launched_with),
    Case("ACCELERATE_USE_FSDP=true", act=launched_with),
    Case("ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4", act=launched_with),
    Case("ACCELERATE_DYNAMO_BACKEND=INDUCTOR", act=launched_with),
    Case("WORLD_SIZE=2", act=launched_with),
    Case("", {".env": b"A=\xfc\n"}, dotenv),
    Case("", {".env": "A=1\nMUSTER_PARTITION: gpu\n"}, dotenv),
    Case("", {".env": 'A="1\nB=2\n'}, dotenv),
    Case("", {".env": "A=1\0\n"}, dotenv),
    # Run folders
    Case("--output_dir train.csv", act=output_dir),
    Case("--output_dir train.csv/run", act=output_dir),
    Case(f"--output_dir {'語' * 86}", act=output_dir),
    Case("--output_dir run", {"run/notes.txt": ""}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "another: program\n"}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "seed: 1\n", "run/results.json": "{}"}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "", **UNFINISHED, "run/manifest.json": "{}"}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "", **UNFINISHED, "run/manifest.json": '{"format": 99}'}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "new: 1\n", "run/manifest.json": '{"format": 99}'}, output_dir),
    Case("demo", {"runs": "a file"}, new_run),
    Case("demo", act=new_run_in_a_link_to_nothing),
    Case("2000000000", act=full_disk),
]


@dataclass(frozen=True)
class Answer:
    case: Case
    message: str
    raised_at: tuple[str, int]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    folder = tmp_path_factory.mktemp("refusals")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(environment, "ROOT", folder)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets-cache")
        return [answer(case, folder / str(number), monkeypatch) for number, case in enumerate(CASES)]


def answer(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    folder.mkdir()
    for name, content in ({"train.csv": TABLE, "eval.csv": TABLE} | case.files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(folder)
    with pytest.raises(Refused) as caught:
        case.act(case.words)
    assert caught.value.exit_code == 2
    text = str(caught.value).replace(str(folder), "<here>").replace(str(config.RECIPES), "<recipes>")
    return Answer(case, text, innermost(caught.tb))


def innermost(traceback: TracebackType | None) -> tuple[str, int]:
    """Module and line where an error was raised."""
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return str(traceback.tb_frame.f_globals["__name__"]), traceback.tb_lineno


def test_every_message_matches_the_snapshot(answers: list[Answer]) -> None:
    snapshots.check("refusals.txt", "\n".join(f"{a.case}\n> {a.message}\n" for a in answers))


def test_every_message_is_one_short_line(answers: list[Answer]) -> None:
    for given in answers:
        assert len(given.message.splitlines()) == 1, given
        assert len(given.message.partition(": cd ")[0]) <= 300, given  # a command to be copied has any length


def test_every_rejection_in_these_modules_has_a_case(answers: list[Answer]) -> None:
    """A new message must get a case above."""
    written = set()
    for name in MODULES:
        source = importlib.import_module(name).__file__
        for node in ast.walk(ast.parse(Path(str(source)).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and "Refused(" in ast.unparse(node):
                written.add((name, node.lineno))
    assert len(written) > 30
    assert written - {given.raised_at for given in answers} == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{SOURCES} --num_train_epochs inf", "--num_train_epochs must be a finite number, not inf"),
        (f"{SOURCES} --learning_rate inf", "--learning_rate must be a finite number, not inf"),
    ],
)
def test_an_overlong_number_is_rejected(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(Case(words), tmp_path / "here", monkeypatch).message == message


def test_too_many_text_columns_are_rejected_before_the_hub_is_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answer(Case("--dataset_name x/y --text_column_names a b c"), tmp_path / "here", monkeypatch)
    assert given.message == "--text_column_names takes one column, or two for sentence pairs, not 3"
