"""`--push_to_hub` as users type it: a failed upload, the same command again, and the model loaded from the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hub import Hub, hub
from tests.support.hub_protocol import Failure, User
from tests.support.launch import TRAIN, Finished, cold_in_turn, cold_torchrun, environment
from tests.support.tiny import tiny_model

TOKEN = "hf_canary_0123"
REPOSITORY = "models/ada/colors"
COMMIT = "/api/models/ada/colors/commit/main"


@dataclass(frozen=True)
class Pushed:
    """A run whose first upload fails, started three times; then its model, from the hub, on the same data."""

    served: Hub
    folder: Path
    first: Finished
    again: Finished
    once_more: Finished
    loaded: Finished


def words(**flags: object) -> list[str]:
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path, dict[str, str]]]:
    """A hub, a folder with data and a model, and the environment of a job that may write to the hub."""
    folder = tmp_path_factory.mktemp("push")
    tiny_model(folder / "model", num_labels=None)
    for name, rows in {"train": 40, "eval": 20}.items():
        lines = (f"{('red', 'blue')[i % 2]} thing {i},{('warm', 'cold')[i % 2]}\n" for i in range(rows))
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(lines))
    with hub({}, users={TOKEN: User("ada")}) as served:
        env = environment(folder / "home") | served.environment(folder / "home", token=TOKEN) | {"OMP_NUM_THREADS": "1"}
        del env["HF_HUB_OFFLINE"]
        yield served, folder, env


def training(folder: Path, out: str) -> list[str]:
    return [*words(model_name_or_path=folder / "model", train_file=folder / "train.csv", max_steps=4,
                   validation_file=folder / "eval.csv", output_dir=folder / out), "--push_to_hub", "--hub_model_id",
            "colors"]  # fmt: skip


@pytest.fixture(scope="module")
def pushed(prepared: tuple[Hub, Path, dict[str, str]]) -> Pushed:
    served, folder, env = prepared
    served.failures.append(Failure("POST", COMMIT, 503))
    load = [*words(model_name_or_path="ada/colors", validation_file=folder / "eval.csv", output_dir=folder / "loaded"),
            "--no_do_train"]  # fmt: skip
    return Pushed(served, folder, *cold_in_turn([*[training(folder, "out")] * 3, load], env=env, cwd=folder))


def test_a_failed_upload_is_reported_in_one_line_and_keeps_the_finished_run(pushed: Pushed) -> None:
    done, out = pushed.first.expect(1), pushed.folder / "out"
    assert len(done.errors) == 1 and "Traceback" not in done.stderr
    assert f"{out}/model is complete, but was not uploaded to ada/colors (" in done.errors[0]
    assert done.errors[0].endswith(f"); to upload it, repeat the command with --output_dir {out}")
    assert (out / "results.json").exists() and (out / "model" / "model.safetensors").exists()


def test_the_same_command_uploads_without_training_and_without_sending_the_weights_again(pushed: Pushed) -> None:
    done = pushed.again.expect(0)
    assert "uploading the model: the run in" in done.stderr and "step 4/4" not in done.stderr
    commit = pushed.served.revision(REPOSITORY)
    assert f"uploaded {pushed.served.endpoint}/ada/colors/tree/{commit}" in done.stderr
    assert sum(request.method == "PUT" for request in pushed.served.requests) == 1
    manifest = json.loads((pushed.folder / "out" / "manifest.json").read_text())
    assert manifest["upload"] == {
        "repository": "ada/colors",
        "requested": "colors",
        "revision": "main",
        "commit": commit,
    }


def test_a_model_that_is_on_the_hub_is_not_uploaded_again(pushed: Pushed) -> None:
    assert "nothing to do: the run in" in pushed.once_more.expect(0).stderr
    assert sum(request.path == COMMIT for request in pushed.served.requests) == 2
    assert json.loads((pushed.folder / "out" / "status.json").read_text())["state"] == "DONE"


def test_the_model_from_the_hub_predicts_the_same_bytes(pushed: Pushed) -> None:
    pushed.loaded.expect(0)
    local, loaded = (pushed.folder / name / "predictions.parquet" for name in ("out", "loaded"))
    assert loaded.read_bytes() == local.read_bytes()


def test_nothing_uploaded_names_the_machine_and_no_file_holds_the_token(pushed: Pushed) -> None:
    uploaded = pushed.served.repositories[REPOSITORY].at("main")
    assert uploaded is not None
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names == set(uploaded.files) - {".gitattributes"}
    for name, content in uploaded.files.items():
        assert str(pushed.folder).encode() not in content and TOKEN.encode() not in content, name
    written = [path for path in (pushed.folder / "out").rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    runs = (pushed.first, pushed.again, pushed.once_more)
    assert not any(TOKEN in done.stderr for done in runs)


@pytest.mark.long
def test_all_processes_end_with_a_failed_upload(prepared: tuple[Hub, Path, dict[str, str]]) -> None:
    served, folder, env = prepared
    served.failures.append(Failure("POST", COMMIT, 403))
    done = cold_torchrun(2, TRAIN, *training(folder, "two"), env=env, cwd=folder)
    assert done.code != 0 and len(done.errors) == 1
    assert "is complete, but was not uploaded to ada/colors (" in done.errors[0]
    status = json.loads((folder / "two" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("FAILED", 4)
    assert status["reason"].startswith("UploadFailed: ")
