"""Every message with exit code 2 that needs no torch: provoked as a user would, and kept whole in one file."""

import ast
import importlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest

from job import config, environment, preflight, run_folder, tables
from job.errors import Refused
from tests.job import snapshots

TABLE = "text,label\na,b\n"
SOURCES = "--train_file train.csv --validation_file eval.csv"
MODULES = ("config", "preflight", "columns", "tables", "environment", "run_folder")


def command_line(words: str) -> None:
    preflight.check(config.parse(shlex.split(words)))


def unreadable(words: str) -> None:
    Path("unreadable.csv").symlink_to("/proc/self/mem")  # root may read any file, but not this one from its start
    command_line(words)


def rows(path: str) -> None:
    list(tables.rows(path, ["text", "label"]))


def output_dir(words: str) -> None:
    asked = config.parse(shlex.split(words))
    run_folder.claim(run_folder.RunFolder(Path(str(asked.run.output_dir)).absolute()), asked)


def launched_with(words: str) -> None:
    environment.refuse_launcher_plans(dict(word.split("=") for word in shlex.split(words)))


def dotenv(_: str) -> None:
    environment.load_dotenv()


@dataclass(frozen=True)
class Case:
    """What is done in a folder with these files, beside train.csv and eval.csv, which are in order."""

    words: str
    files: dict[str, str | bytes] = field(default_factory=dict)
    act: Callable[[str], None] = command_line

    def __str__(self) -> str:
        holding = "".join(f"\n  {name}: {content!r}" for name, content in self.files.items())
        return f"{self.act.__name__}: {self.words}{holding}"


def table(content: str | bytes, name: str = "train.csv") -> Case:
    return Case(SOURCES, {name: content})


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
    Case("--do_train yes"),
    Case("-x"),
    # Recipes
    Case("mrpk"),
    Case("mrpc cola"),
    Case("own.yaml"),
    Case("own.yaml", {"own.yaml": "learning_rate: [1\n"}),
    Case("own.yaml", {"own.yaml": b"text: \xfc\n"}),
    Case("own.yaml", {"own.yaml": "- a\n"}),
    Case("own.yaml", {"own.yaml": "learning_rat: 1\n"}),
    Case("own.yaml", {"own.yaml": "lr: 1\n"}),
    Case("own.yaml", {"own.yaml": "seed: many\n"}),
    Case("own.yaml", {"own.yaml": "learning_rate: fast\n"}),
    Case("own.yaml", {"own.yaml": "do_train: 1\n"}),
    Case("own.yaml", {"own.yaml": "max_steps: 1.5\n"}),
    Case("own.yaml", {"own.yaml": "metrics: [1]\n"}),
    Case("own.yaml", {"own.yaml": "lr_scheduler_type: round\n"}),
    # Settings that cannot work
    Case(f"{SOURCES} --train_batch_size 0"),
    Case(f"{SOURCES} --seed -1"),
    Case(f"{SOURCES} --learning_rate nan"),
    Case(f"{SOURCES} --num_train_epochs inf"),
    Case(f"{SOURCES} --max_grad_norm inf"),
    Case(f"{SOURCES} --warmup_ratio 1"),
    Case(f"{SOURCES} --metrics"),
    Case(f"{SOURCES} --metrics accuracy --metric_for_best_model f1_macro"),
    Case(f"{SOURCES} --max_seq_length 128 --max_tokens_per_device 100"),
    Case(f"{SOURCES} --eval_strategy steps"),
    Case(f"{SOURCES} --eval_steps 5"),
    Case(f"{SOURCES} --eval_strategy no --early_stopping_patience 2"),
    # Sources
    Case("--seed 1"),
    Case("--train_file train.csv"),
    Case("--no_do_train"),
    Case("--dataset_name yelp_review_full --train_file train.csv"),
    Case("--train_file no.csv --validation_file eval.csv"),
    Case("--train_file /no/no.csv --validation_file eval.csv"),
    Case("--train_file . --validation_file eval.csv"),
    Case("--train_file train.tsv --validation_file eval.csv", {"train.tsv": ""}),
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
    Case(f"{SOURCES} --text_column_names body"),
    Case(f"{SOURCES} --label_column_name stars"),
    Case(f"{SOURCES} --text_column_names a b c"),
    Case("--train_file a.jsonl --validation_file eval.csv", {"a.jsonl": "\n"}),
    Case("--train_file a.jsonl --validation_file eval.csv", {"a.jsonl": "{'text': 1}\n"}),
    Case("--train_file a.jsonl --validation_file eval.csv", {"a.jsonl": "[]\n"}),
    Case("a.csv", {"a.csv": "text,label\na\n"}, rows),
    Case("a.csv", {"a.csv": "text,label\na,b,c\n"}, rows),
    Case("a.csv", {"a.csv": 'text,label\n"a,b\n'}, rows),
    # The environment
    Case("ACCELERATE_USE_FSDP=true", act=launched_with),
    Case("ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4", act=launched_with),
    Case("WORLD_SIZE=2", act=launched_with),
    Case("", {".env": b"A=\xfc\n"}, dotenv),
    # Run folders
    Case("--output_dir train.csv", act=output_dir),
    Case("--output_dir train.csv/run", act=output_dir),
    Case("--output_dir run", {"run/notes.txt": ""}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "another: program\n"}, output_dir),
    Case("--output_dir run", {"run/config.yaml": "seed: 1\n", "run/results.json": "{}"}, output_dir),
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
        return [answer(case, folder / str(number), monkeypatch) for number, case in enumerate(CASES)]


def answer(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    folder.mkdir()
    for name, content in ({"train.csv": TABLE, "eval.csv": TABLE} | case.files).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(folder)
    with pytest.raises(Refused) as caught:
        case.act(case.words)
    assert caught.value.exit_code == 2
    text = str(caught.value).replace(str(folder), "<here>").replace(str(config.RECIPES), "<recipes>")
    return Answer(case, text, innermost(caught.tb))


def innermost(traceback: TracebackType | None) -> tuple[str, int]:
    """File name and line where an error was raised."""
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return Path(traceback.tb_frame.f_code.co_filename).stem, traceback.tb_lineno


def test_every_message_is_on_record(answers: list[Answer]) -> None:
    snapshots.check("refusals.txt", "\n".join(f"{a.case}\n> {a.message}\n" for a in answers))


def test_every_message_is_one_short_line(answers: list[Answer]) -> None:
    for given in answers:
        assert len(given.message.splitlines()) == 1, given
        assert len(given.message) <= 300, given


def test_no_refusal_of_these_modules_is_left_out(answers: list[Answer]) -> None:
    """A new message must get a case above."""
    written = set()
    for name in MODULES:
        source = importlib.import_module(f"job.{name}").__file__
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
def test_a_number_without_end_is_refused(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(Case(words), tmp_path / "here", monkeypatch).message == message


def test_too_many_text_columns_are_refused_before_the_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answer(Case("--dataset_name x/y --text_column_names a b c"), tmp_path / "here", monkeypatch)
    assert given.message == "--text_column_names takes one column, or two for sentence pairs, not 3"
