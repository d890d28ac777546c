"""Data sets and models by name and revision, from a stand-in hub on loopback, then again offline from the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from tests.support.hub import Hub, hub
from tests.support.launch import TRAIN, Finished, cold, cold_in_turn, environment
from tests.support.tiny import tiny_model, tiny_tokenizer

HEADER = """---
language: en
configs:
- config_name: films
  data_files:
  - {split: train, path: films/train.csv}
  - {split: validation, path: films/test.csv}
- config_name: pairs
  data_files:
  - {split: train, path: pairs/train.csv}
  - {split: validation, path: pairs/train.csv}
---
"""


def data_set(folder: Path, good: str, bad: str) -> Path:
    """A repository with two configurations; `good` and `bad` are its label names."""
    rows = "".join(f"film {number},{(good, bad)[number % 2]}\n" for number in range(20))
    pairs = "".join(f"one {n},two {n},{n % 2}\n" for n in range(20))
    films, pairs = f"text,label\n{rows}", f"sentence1,sentence2,label\n{pairs}"
    files = {"films/train.csv": films, "films/test.csv": films, "pairs/train.csv": pairs, "README.md": HEADER}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    folder = tmp_path_factory.mktemp("hub")
    for name, seed in (("first", 1), ("second", 2)):
        tiny_tokenizer(folder / name, ["film", "one", "two"])
        tiny_model(folder / name, num_labels=None, seed=seed)
        (folder / name / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    repositories = {
        "datasets/acme/reviews": {
            "main": data_set(folder / "new", "good", "bad"),
            "v1": data_set(folder / "old", "gut", "schlecht"),
        },
        "models/acme/tiny": {"main": folder / "first", "v2": folder / "second"},
    }
    with hub(repositories) as running:
        yield running, folder


def train(served: tuple[Hub, Path], *runs: Mapping[str, object], offline: bool = False) -> list[Finished]:
    running, folder = served
    usual: dict[str, object] = {
        "model_name_or_path": "acme/tiny", "dataset_name": "acme/reviews", "dataset_config_name": "films",
        "max_steps": 1,
    }  # fmt: skip
    env = (
        environment(folder / "home") | running.environment(folder / "home", offline=offline) | {"OMP_NUM_THREADS": "1"}
    )
    if not offline:
        env.pop("HF_HUB_OFFLINE", None)
    lines = [[word for name, value in {**usual, **run}.items() for word in (f"--{name}", str(value))] for run in runs]
    return cold_in_turn(lines, env=env, cwd=folder)


def labels(served: tuple[Hub, Path], out: str) -> set[str]:
    return set(pq.read_table(served[1] / out / "predictions.parquet")["label"].to_pylist())


REJECTED: list[tuple[dict[str, object], str]] = [
    ({"dataset_name": "acme/nothing"}, "dataset acme/nothing not found or not reachable: "),
    ({"dataset_revision": "v9"}, "dataset acme/reviews at v9 not found or not reachable: "),
    ({"dataset_config_name": "songs"}, "dataset acme/reviews songs cannot be loaded: "),
    ({"validation_split_name": "dev"}, "acme/reviews films has no split dev; its splits: train, validation"),
    ({"model_revision": "v9"}, "there is no folder acme/tiny here, and from the hub it cannot be loaded: "),
]
MAIN: dict[str, object] = {"output_dir": "main"}
V1: dict[str, object] = {"output_dir": "v1", "dataset_revision": "v1", "model_revision": "v2"}
PAIRS: dict[str, object] = {"output_dir": "pairs", "dataset_config_name": "pairs"}


@pytest.fixture(scope="module")
def online(served: tuple[Hub, Path]) -> list[Finished]:
    """Runs with a reachable hub: MAIN, V1 and PAIRS, and those in REJECTED."""
    return train(served, MAIN, V1, PAIRS, *({**changes, "output_dir": "rejected"} for changes, _ in REJECTED))


def test_the_revision_selects_data_and_model_online_and_offline(
    served: tuple[Hub, Path], online: list[Finished]
) -> None:
    running, folder = served
    for done in online[:2]:
        done.expect(0)
    assert labels(served, "main") == {"good", "bad"}
    assert labels(served, "v1") == {"gut", "schlecht"}

    running.requests.clear()
    for done in train(served, MAIN | {"output_dir": "main-offline"}, V1 | {"output_dir": "v1-offline"}, offline=True):
        done.expect(0)
    assert not running.requests, "nothing is asked when offline"
    for name in ("main", "v1"):
        one, other = (folder / f"{name}{end}" / "predictions.parquet" for end in ("", "-offline"))
        assert one.read_bytes() == other.read_bytes()
    assert (folder / "main" / "predictions.parquet").read_bytes() != (
        folder / "v1" / "predictions.parquet"
    ).read_bytes()


def test_the_card_names_model_data_and_revision(served: tuple[Hub, Path], online: list[Finished]) -> None:
    running, folder = served
    online[1].expect(0)
    metadata = ModelCard.load(folder / "v1" / "model" / "README.md").data.to_dict()
    assert (metadata["base_model"], metadata["datasets"], metadata["license"]) == ("acme/tiny", ["acme/reviews"], "mit")
    assert metadata["language"] == ["en"]
    [result] = metadata["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "acme/reviews films",
        "type": "acme/reviews",
        "config": "films",
        "revision": running.revision("datasets/acme/reviews", "v1"),
    }


def test_a_configuration_with_pairs_is_read_by_name(served: tuple[Hub, Path], online: list[Finished]) -> None:
    assert "text: sentence1 + sentence2" in online[2].expect(0).stderr
    assert json.loads((served[1] / "pairs" / "results.json").read_text())["eval"]["examples"] == 20


@pytest.mark.parametrize("number", range(len(REJECTED)), ids=lambda number: str(REJECTED[number][0]))
def test_repositories_missing_from_the_hub_are_rejected_by_name(online: list[Finished], number: int) -> None:
    done = online[3 + number].expect(2)
    assert len(done.errors) == 1
    assert REJECTED[number][1] in done.errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_endpoint_and_token_come_from_dotenv_unless_set_in_the_environment(tmp_path: Path) -> None:
    repositories = {"datasets/acme/reviews": {"main": data_set(tmp_path / "data", "good", "bad")}}
    tiny_model(tmp_path / "model", num_labels=None)
    arguments = ["--model_name_or_path", "model", "--dataset_name", "acme/reviews", "--dataset_config_name", "films",
                 "--max_steps", "1", "--output_dir"]  # fmt: skip
    env = environment(tmp_path / "home")
    del env["HF_HUB_OFFLINE"]
    with hub(repositories, token="canary-0123") as running:
        (tmp_path / ".env").write_text(f"HF_ENDPOINT={running.endpoint}\nexport HF_TOKEN='canary-0123' # mine\n")
        cold(TRAIN, *arguments, "run", env=env, cwd=tmp_path).expect(0)
        assert any(request.with_token for request in running.requests)
        rejected = cold(TRAIN, *arguments, "no", env={**env, "HF_TOKEN": "another"}, cwd=tmp_path).expect(2)
        assert "dataset acme/reviews not found or not reachable: " in rejected.errors[0]
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"canary-0123" in path.read_bytes()], "a token is in the run folder"
