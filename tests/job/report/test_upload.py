"""The upload: the repository, what is in it, and what a failed one leaves, on the stand-in hub.

In this process, with the library's constants set as its import with another environment would set them.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from job import config
from job.config import Config
from job.errors import JobError, Refused, Stopped, UploadFailed
from job.report import card, upload
from job.run import opening
from job.run.folder import RunFolder
from job.runtime import signals
from tests.support.hub import Hub, hub
from tests.support.hub_protocol import Failure, User
from tests.support.hub_uploads import card_errors

WRITES, READS = "hf_canary_writes", "hf_canary_reads"
WEIGHTS = b"weights " * 1000
CARD = f'---\nbase_model: acme/tiny\n---\nmodel="{card.MODEL_HERE}"\n'
COMMIT = "/api/models/[^/]+/[^/]+/commit/.*"
STORE = "/large-files/[0-9a-f]+"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub({}, users={WRITES: User("ada"), READS: User("eve", writes=False)}) as running:
        settings = {"HF_HUB_OFFLINE": False, "ENDPOINT": running.endpoint, "HF_HUB_DISABLE_XET": True}
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", WRITES)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A finished run."""
    made = RunFolder(tmp_path / "run-1")
    (made.model / "extra").mkdir(parents=True)
    contents = {"model.safetensors": WEIGHTS, "config.json": b"{}", "README.md": CARD.encode(), "extra/a.json": b"[]"}
    for name, content in contents.items():
        (made.model / name).write_bytes(content)
    made.manifest.write_text('{"seed": 42}')
    made.results.write_text('{"best_step": 7}')
    made.status.write_text('{"state": "DONE", "step": 7, "steps": 9, "reason": ""}')
    return made


def asked(**settings: object) -> Config:
    return config.from_dict({"push_to_hub": True, **settings})


def pushed(folder: RunFolder, **settings: object) -> None:
    upload.push(asked(**settings), folder, upload.prepare(asked(**settings), folder))


def files(served: Hub, name: str = "ada/run-1", branch: str = "main") -> dict[str, bytes]:
    found = served.repositories[f"models/{name}"].at(branch)
    assert found is not None
    return {path: content for path, content in found.files.items() if path != ".gitattributes"}


def stored(served: Hub) -> int:
    """How often a large file was sent."""
    return sum(request.method == "PUT" for request in served.requests)


def test_the_repository_is_made_and_named_by_the_run_before_training(served: Hub, folder: RunFolder) -> None:
    target = upload.prepare(asked(), folder)
    assert target == upload.Target("ada/run-1", "main")
    assert files(served) == {} and not served.repositories["models/ada/run-1"].private
    assert upload.prepare(asked(), folder) == target, "one that is there is taken"
    assert upload.prepare(asked(hub_model_id="ada/other", hub_private_repo=True), folder).repository == "ada/other"
    assert served.repositories["models/ada/other"].private
    assert upload.prepare(asked(hub_model_id="short"), folder).repository == "ada/short"


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        ("hf_canary_unknown", "ada/x", "--push_to_hub: the hub does not accept the token in HF_TOKEN: make one with "),
        ("hf_canary_unknown", None, "--push_to_hub: the hub does not accept the token in HF_TOKEN: make one with "),
        (READS, "eve/x", "--push_to_hub: the token in HF_TOKEN may not write to eve/x: make one with write access at "),
        (READS, "ada/there", "--push_to_hub: the token in HF_TOKEN may not write to ada/there: make one with "),
        (WRITES, "bob/x", "--push_to_hub: the token in HF_TOKEN may not write to bob/x: make one with write access "),
    ],
)
def test_a_token_that_may_not_write_is_rejected_before_training(
    served: Hub, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, token: str, name: str | None, said: str
) -> None:
    upload.prepare(asked(hub_model_id="ada/there"), folder)
    monkeypatch.setenv("HF_TOKEN", token)
    assert refusal(folder, hub_model_id=name).startswith(said)
    assert set(served.repositories) == {"models/ada/there"}


def test_a_public_repository_is_not_taken_for_a_private_one(served: Hub, folder: RunFolder) -> None:
    upload.prepare(asked(hub_model_id="ada/seen"), folder)
    assert refusal(folder, hub_model_id="ada/seen", hub_private_repo=True).startswith(
        "--hub_private_repo: ada/seen exists and is public: make it private in its settings, or choose another "
    )


def test_a_tag_is_rejected_before_training(served: Hub, folder: RunFolder) -> None:
    upload.prepare(asked(hub_model_id="ada/x", hub_revision="v1"), folder)
    served.repositories["models/ada/x"].tags.add("v1")
    assert refusal(folder, hub_model_id="ada/x", hub_revision="v1") == (
        "--hub_revision v1 is a tag of ada/x: name a branch, or delete the tag"
    )


@contextlib.contextmanager
def no_answer() -> Iterator[str]:
    """Within, the hub's address is one where nobody listens."""
    with socket.socket() as closed, pytest.MonkeyPatch.context() as patched:
        closed.bind(("127.0.0.1", 0))  # bound, so nobody else is there, but it does not listen
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        patched.setattr(constants, "ENDPOINT", endpoint)
        yield endpoint


def test_a_hub_that_does_not_answer_is_named(served: Hub, folder: RunFolder) -> None:
    with no_answer() as endpoint:
        said = refusal(folder, hub_model_id="ada/x")
    assert said.startswith(f"--push_to_hub: ada/x on {endpoint} cannot be written to: ")


def test_a_resumed_run_trains_without_the_hub_and_uploads_at_its_end(
    served: Hub, folder: RunFolder, logged: list[str]
) -> None:
    with no_answer():
        assert upload.prepare_resumed(asked(), folder) is None
        assert logged[-1].endswith("; training is resumed, and the hub is asked again at the end")
        with pytest.raises(UploadFailed, match=f"{folder.model} is complete, but was not uploaded .*--output_dir"):
            upload.push(asked(), folder, None)
    upload.push(asked(), folder, None)
    assert files(served)["model.safetensors"] == WEIGHTS


def refusal(folder: RunFolder, **settings: object) -> str:
    with pytest.raises(Refused) as caught:
        upload.prepare(asked(**settings), folder)
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_the_model_folder_is_uploaded_whole_and_the_card_names_the_repository(
    served: Hub, folder: RunFolder, tmp_path: Path
) -> None:
    pushed(folder)
    found = files(served)
    assert found.pop("README.md").decode() == CARD.replace(card.MODEL_HERE, "ada/run-1")
    assert found == {"model.safetensors": WEIGHTS, "config.json": b"{}", "extra/a.json": b"[]"}
    assert (folder.model / "README.md").read_text() == CARD
    commit = served.revision("models/ada/run-1")
    record = {"repository": "ada/run-1", "requested": "run-1", "revision": "main", "commit": commit}
    assert json.loads(folder.manifest.read_text()) == {"seed": 42, "upload": record}


def test_no_other_weights_and_no_hidden_files_are_uploaded(served: Hub, folder: RunFolder, logged: list[str]) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "weights.PKL"):
        (folder.model / name).write_bytes(b"pickled")
    (folder.model / ".env").write_text("HF_TOKEN=canary")
    (folder.model / ".cache").mkdir()
    (folder.model / ".cache" / "x.json").write_text("{}")
    pushed(folder)
    assert sorted(files(served)) == ["README.md", "config.json", "extra/a.json", "model.safetensors"]
    warned = [line for line in logged if line.startswith("WARNING")]
    assert warned[0] == f"WARNING {folder.model}/optimizer.pt is not uploaded: weights are uploaded as safetensors only"
    assert len(warned) == 4


def test_weights_of_an_older_model_are_removed(served: Hub, folder: RunFolder) -> None:
    (folder.model / "notes.txt").write_text("kept")
    pushed(folder)
    (folder.model / "model.safetensors").rename(folder.model / "model-00001-of-00001.safetensors")
    (folder.model / "model.safetensors.index.json").write_text("{}")
    (folder.model / "notes.txt").unlink()
    pushed(folder)
    there = set(files(served))
    assert {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "notes.txt"} <= there
    assert "model.safetensors" not in there


def test_a_branch_is_made_and_main_left_alone(served: Hub, folder: RunFolder) -> None:
    pushed(folder, hub_revision="try-2")
    assert files(served) == {} and len(files(served, branch="try-2")) == 4
    assert json.loads(folder.manifest.read_text())["upload"]["revision"] == "try-2"
    pushed(folder, hub_revision="try-2")
    assert stored(served) == 1, "what has not changed is not sent again"


@pytest.mark.parametrize(
    ("method", "path", "sent"), [("POST", COMMIT, 1), ("PUT", STORE, 2)], ids=["commit", "weights"]
)
def test_a_failed_upload_leaves_the_run_whole_and_is_resumed(
    served: Hub, folder: RunFolder, method: str, path: str, sent: int
) -> None:
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    served.failures.append(Failure(method, path, 403))
    with pytest.raises(UploadFailed) as caught:
        pushed(folder)
    line = str(caught.value)
    assert line == (
        f"{folder.model} is complete, but was not uploaded to ada/run-1 (the hub answered 403: Made to fail); "
        f"to upload it, repeat the command with --output_dir {folder.path}"
    )
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    assert files(served) == {}, "a commit is whole or not there"
    pushed(folder)
    assert files(served)["model.safetensors"] == WEIGHTS
    assert stored(served) == sent


def test_a_card_that_the_hub_rejects_is_a_failed_upload(served: Hub, folder: RunFolder) -> None:
    (folder.model / "README.md").write_text("---\nbase_model: /home/me/model\n---\n")
    with pytest.raises(UploadFailed, match='"base_model" with value "/home/me/model" is not valid'):
        pushed(folder)
    assert card_errors(CARD) == []


def test_the_status_of_a_finished_run_says_how_its_upload_went(served: Hub, folder: RunFolder) -> None:
    served.failures.append(Failure("POST", COMMIT, 500))
    with pytest.raises(UploadFailed):
        upload.push_finished(asked(), folder)
    failed = json.loads(folder.status.read_text())
    assert (failed["state"], failed["step"], failed["steps"]) == ("FAILED", 7, 9)
    assert failed["reason"].startswith(f"UploadFailed: {folder.model} is complete, but was not uploaded to ada/run-1 (")
    upload.push_finished(asked(), folder)
    assert json.loads(folder.status.read_text())["state"] == "DONE"


def test_a_stop_during_the_upload_says_that_the_run_is_finished(
    served: Hub, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = upload.prepare(asked(), folder)
    monkeypatch.setattr(signals, "reason", lambda: signal.SIGTERM)
    with pytest.raises(Stopped) as caught:
        upload.push(asked(overwrite_output_dir=True), folder, target)
    assert str(caught.value) == (
        "stopped by SIGTERM during the upload; the run is finished; to upload it, repeat the command with --output_dir "
        f"{folder.path} and without --overwrite_output_dir"
    )
    assert files(served) == {}


def test_a_rejected_upload_leaves_the_status_of_a_finished_run(
    served: Hub, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder.status.read_text()
    monkeypatch.setenv("HF_TOKEN", READS)
    with pytest.raises(JobError):
        upload.push_finished(asked(hub_model_id="ada/x"), folder)
    assert folder.status.read_text() == before


def test_an_upload_is_due_until_it_is_where_it_is_wanted(served: Hub, folder: RunFolder) -> None:
    assert not opening.upload_is_due(folder, Config())
    assert opening.upload_is_due(folder, asked())
    pushed(folder)
    for settings in ({}, {"hub_model_id": "run-1"}, {"hub_model_id": "ada/run-1"}, {"hub_revision": "main"}):
        assert not opening.upload_is_due(folder, asked(**settings)), settings
    for settings in ({"hub_model_id": "ada/other"}, {"hub_model_id": "bob/run-1"}, {"hub_revision": "v2"}):
        assert opening.upload_is_due(folder, asked(**settings)), settings
    folder.manifest.write_text(
        json.dumps({"upload": {"repository": "acme/run-1", "requested": "acme/run-1", "revision": "main"}})
    )
    assert not opening.upload_is_due(folder, asked(hub_model_id="acme/run-1"))
    for settings in ({}, {"hub_model_id": "run-1"}):
        assert opening.upload_is_due(folder, asked(**settings)), "that of another account is not one's own"
