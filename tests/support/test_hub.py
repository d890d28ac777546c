"""The stand-in hub is judged by the real clients: they load from it online, offline and without permission.

Trade-off taken: every client runs in a new process, because the libraries read their environment at import;
a few processes make many requests each, since the imports cost the time. Not chosen: one process
per request, which would read better and take minutes, and calling the server directly, which would only show
that it does what its author expected the clients to request.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import Hub, Request, hub
from tests.support.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.long

# Sockets are watched from inside the process: a server that is off could not tell that it was called, nor
# could a running one tell that some other address was.
_PRELUDE = """
import json, sys
connected = []
def watch(event, details):
    if event == "socket.connect":
        connected.append(str(details[1][0]))
    if event == "socket.getaddrinfo":
        connected.append(str(details[0]))
sys.addaudithook(watch)

def chain(error):
    while error is not None:
        yield type(error).__name__
        error = error.__cause__ or error.__context__

def attempt(call):
    try:
        return call()
    except Exception as error:
        return list(chain(error))

def report(**values):
    print(json.dumps(values | {"connected": sorted(set(connected))}))
"""

_LOAD = """
import torch
from datasets import load_dataset
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

def texts(*names, **options):
    return load_dataset(*names, **options)["train"]["text"][:]

def classify(revision):
    tokenizer = AutoTokenizer.from_pretrained("acme/tiny", revision=revision)
    model = AutoModelForSequenceClassification.from_pretrained("acme/tiny", revision=revision).eval()
    with torch.no_grad():
        logits = model(**tokenizer("a good film", return_tensors="pt")).logits
    return {"tokens": tokenizer.tokenize("a good film"), "logits": logits.tolist()}

def everything(revision):
    folder = snapshot_download("acme/reviews", repo_type="dataset", revision=revision)
    return {
        "books": texts("acme/reviews", "books", revision=revision),
        "films": texts("acme/reviews", "films", revision=revision),
        "plain": texts("acme/plain", revision=revision),
        "snapshot": texts(folder, "books"),
        "model": classify(revision),
    }

loaded = {revision: everything(revision) for revision in ("main", "v2")}
"""

_REPORT_LOADED = "report(**loaded)"

_REPORT_ERRORS = """
failures = {
    "dataset": attempt(lambda: load_dataset("acme/none")),
    "dataset revision": attempt(lambda: load_dataset("acme/reviews", "books", revision="v9")),
    "dataset information": attempt(lambda: HfApi().dataset_info("acme/none")),
    "dataset file": attempt(lambda: HfApi().hf_hub_download("acme/plain", "none.csv", repo_type="dataset")),
    "model": attempt(lambda: AutoConfig.from_pretrained("acme/none")),
    "model revision": attempt(lambda: AutoConfig.from_pretrained("acme/tiny", revision="v9")),
    "model information": attempt(lambda: HfApi().model_info("acme/tiny", revision="v9")),
}
pinned = texts("acme/plain", revision=HfApi().dataset_info("acme/plain", revision="v2").sha)
streamed = [row["text"] for row in load_dataset("acme/plain", revision="v2", streaming=True)["train"]]
report(**loaded, failures=failures, pinned=pinned, streamed=streamed)
"""

_PRIVATE = """
from datasets import load_dataset
from transformers import AutoConfig
report(
    dataset=attempt(lambda: load_dataset("acme/plain", revision="v2")["train"]["text"][:]),
    model=attempt(lambda: AutoConfig.from_pretrained("acme/tiny", revision="v2").num_hidden_layers),
)
"""

_TWO_CONFIGS = """---
configs:
- config_name: films
  data_files: films/*.csv
- config_name: books
  data_files: books/*.csv
---
Reviews.
"""


@dataclass(frozen=True)
class Session:
    """What one client process reported, and what the server had seen by then."""

    values: Mapping[str, Any]
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Visits:
    """The same requests made twice from one cache: with the server on, then offline without it."""

    served: Hub
    online: Session
    offline: Session


def _client(served: Hub, environment: Mapping[str, str], script: str) -> Session:
    command = [sys.executable, "-c", _PRELUDE + script]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return Session(json.loads(done.stdout.splitlines()[-1]), tuple(served.requests))


def _reviews(folder: Path, version: str) -> Path:
    for config in ("films", "books"):
        (folder / config).mkdir(parents=True)
        (folder / config / "train.csv").write_text(f"text,label\n{config} of {version},1\n", encoding="utf-8")
    (folder / "README.md").write_text(_TWO_CONFIGS, encoding="utf-8")
    return folder


def _plain(folder: Path, version: str) -> Path:
    """No README and no config: the library has to find the files by itself, which takes other requests."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": [f"plain {version}"], "label": [0]}), folder / "train.parquet")
    return folder


def _tiny(folder: Path, words: list[str], seed: int) -> Path:
    tiny_tokenizer(folder, words)
    tiny_model(folder, seed=seed)
    return folder


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    root = tmp_path_factory.mktemp("repositories")
    return {
        "datasets/acme/reviews": {name: _reviews(root / "reviews" / name, name) for name in ("main", "v2")},
        "datasets/acme/plain": {name: _plain(root / "plain" / name, name) for name in ("main", "v2")},
        "models/acme/tiny": {
            "main": _tiny(root / "tiny" / "main", ["film"], 0),
            "v2": _tiny(root / "tiny" / "v2", ["film", "good"], 1),
        },
    }


@pytest.fixture(scope="module")
def visits(repositories: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Visits:
    home = tmp_path_factory.mktemp("home")
    with hub(repositories) as served:
        online = _client(served, served.environment(home), _LOAD + _REPORT_ERRORS)
    offline = _client(served, served.environment(home, offline=True), _LOAD + _REPORT_LOADED)
    return Visits(served, online, offline)


@pytest.fixture(scope="module")
def private_hub(repositories: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    with hub(repositories, token="secret") as served:
        yield served


@pytest.mark.parametrize("revision", ["main", "v2"])
def test_revision_and_config_select_the_content_of_a_dataset(visits: Visits, revision: str) -> None:
    loaded = visits.online.values[revision]
    assert loaded["books"] == [f"books of {revision}"]
    assert loaded["films"] == [f"films of {revision}"]
    assert loaded["plain"] == [f"plain {revision}"]


def test_commit_hash_and_streaming_give_the_same_rows(visits: Visits) -> None:
    assert visits.online.values["pinned"] == ["plain v2"]
    assert visits.online.values["streamed"] == ["plain v2"]
    assert any(request.status == 206 for request in visits.online.requests)


def test_the_revision_selects_tokenizer_and_weights_of_a_model(visits: Visits) -> None:
    first, second = (visits.online.values[revision]["model"] for revision in ("main", "v2"))
    assert first["tokens"] == ["a", "g", "##o", "##o", "##d", "film"]
    assert second["tokens"] == ["a", "good", "film"]
    assert first["logits"] != second["logits"]


def test_clients_download_by_commit_not_by_branch(visits: Visits) -> None:
    commit = visits.served.revision("models/acme/tiny", "v2")
    downloads = {request.path for request in visits.online.requests if request.method == "GET"}
    assert f"/acme/tiny/resolve/{commit}/model.safetensors" in downloads
    assert not any(request.with_token for request in visits.online.requests)


def test_offline_gives_the_same_content_and_opens_no_connection(visits: Visits) -> None:
    assert visits.offline.values["v2"] == visits.online.values["v2"]
    assert visits.offline.values["connected"] == []
    assert visits.offline.requests == visits.online.requests
    for kind in ("model", "snapshot"):
        assert visits.offline.values["main"][kind] == visits.online.values["main"][kind]


def test_offline_load_dataset_ignores_the_revision(visits: Visits) -> None:
    """Offline, the library uses the copy prepared last, of any revision; `snapshot_download` does not.

    A failure here means that the library was fixed, and that code which goes through a snapshot to be sure
    of its revision may stop doing so.
    """
    assert visits.offline.values["main"]["books"] == ["books of v2"]
    assert visits.offline.values["main"]["snapshot"] == ["books of main"]


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("dataset", "DatasetNotFoundError"),
        ("dataset revision", "RevisionNotFoundError"),
        ("dataset information", "RepositoryNotFoundError"),
        ("dataset file", "RemoteEntryNotFoundError"),
        ("model", "RepositoryNotFoundError"),
        ("model revision", "RevisionNotFoundError"),
        ("model information", "RevisionNotFoundError"),
    ],
)
def test_missing_repositories_raise_the_clients_own_error(visits: Visits, question: str, error: str) -> None:
    assert error in visits.online.values["failures"][question]


@pytest.mark.parametrize(
    ("token", "errors"),
    [
        (None, ("DatasetNotFoundError", "RepositoryNotFoundError")),
        ("wrong", ("HfHubHTTPError", "HfHubHTTPError")),
    ],
)
def test_private_repository_is_rejected(
    private_hub: Hub, tmp_path: Path, token: str | None, errors: tuple[str, str]
) -> None:
    private_hub.requests.clear()
    session = _client(private_hub, private_hub.environment(tmp_path, token=token), _PRIVATE)
    assert errors[0] in session.values["dataset"]
    assert errors[1] in session.values["model"]
    assert {request.status for request in session.requests} == {401}
    assert {request.with_token for request in session.requests} == {token is not None}


def test_private_repository_opens_with_the_token(private_hub: Hub, tmp_path: Path) -> None:
    private_hub.requests.clear()
    session = _client(private_hub, private_hub.environment(tmp_path, token="secret"), _PRIVATE)
    assert session.values["dataset"] == ["plain v2"]
    assert session.values["model"] == 2
    assert all(request.with_token for request in session.requests)
    assert "secret" not in repr(private_hub)


def test_a_moved_branch_keeps_its_old_commit(tmp_path: Path) -> None:
    folder = _reviews(tmp_path / "reviews", "first")
    with hub({"datasets/acme/reviews": {"main": folder}}) as served:
        before = served.revision("datasets/acme/reviews")
        (folder / "films" / "train.csv").write_text("text,label\nmoved,0\n", encoding="utf-8")
        after = served.publish("datasets/acme/reviews", "main", folder)
        assert after == served.revision("datasets/acme/reviews") != before
        old = served.repositories["datasets/acme/reviews"].at(before)
    assert old is not None and b"first" in old.files["films/train.csv"]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("num_labels", [3, None])
def test_tiny_model_reads_a_full_length_pair(tmp_path: Path, architecture: str, num_labels: int | None) -> None:
    """The longest pair uses the last position and the second token type, where a wrong size would show."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    tiny_model(tmp_path, architecture=architecture, layers=1, hidden=8, num_labels=num_labels)
    model_class = AutoModel if num_labels is None else AutoModelForSequenceClassification
    model = model_class.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer(["abc " * 40], ["xyz " * 40], truncation=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**encoded)[0]
    assert model.config.model_type == architecture
    assert output.shape == ((1, 64, 8) if num_labels is None else (1, num_labels))


def test_tiny_model_is_reproducible_and_keeps_the_random_state(tmp_path: Path) -> None:
    import torch

    state = torch.get_rng_state()
    for folder in ("first", "second"):
        tiny_model(tmp_path / folder, seed=3)
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("first", "second")]
    assert weights[0] == weights[1]
    assert torch.equal(torch.get_rng_state(), state)
