"""What a job needs of the hub, fetched from a stand-in on loopback; then the job runs where there is no network.

Each command is started as a user does: what the libraries read at their import is the hub's address and the cache.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from job import prefetch
from tests.support import namespaces
from tests.support.hub import Hub, hub
from tests.support.launch import ROOT, TRAIN, Finished, environment, run
from tests.support.tiny import tiny_model, tiny_tokenizer

METRIC = """
import datasets
import evaluate


class Share(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"share_of_ones": sum(predictions) / len(predictions)}
"""
JOB = {
    "model_name_or_path": "acme/tiny",
    "model_revision": "v2",
    "tokenizer_name": "acme/words",
    "dataset_name": "acme/reviews",
    "dataset_revision": "v1",
    "metrics": "accuracy acme/share",
    "max_steps": 1,
}


@dataclass(frozen=True)
class Site:
    """A hub, and a folder with a cache for each of several homes."""

    hub: Hub
    folder: Path

    def environ(self, home: str, *, offline: bool = False, token: str | None = None) -> dict[str, str]:
        path = self.folder / home
        env = environment(path) | self.hub.environment(path, token=token, offline=offline) | {"OMP_NUM_THREADS": "1"}
        return env if offline else {name: value for name, value in env.items() if name != "HF_HUB_OFFLINE"}

    def prefetch(self, home: str, *words: str, own: Sequence[str] = (), **environ: str) -> Finished:
        command = [sys.executable, "-m", "launch", "prefetch", *own, "--", *words]
        env = {**self.environ(home), "PYTHONPATH": str(ROOT), **environ}
        return run(command, env, self.folder, 120)


def flags(values: Mapping[str, object], **changes: object) -> list[str]:
    return [word for name, value in {**values, **changes}.items() for word in (f"--{name}", *str(value).split())]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    for name, seed in (("first", 1), ("second", 2)):
        tiny_tokenizer(folder / name, ["film", "one", "two"])
        tiny_model(folder / name, num_labels=None, seed=seed)
        (folder / name / "pytorch_model.bin").write_bytes(b"a pickle that nobody reads")
        (folder / name / "README.md").write_text("A model.", encoding="utf-8")
    for name in ("words", "bare"):
        tiny_tokenizer(folder / name, ["film", "one", "two"])
    (folder / "words" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    for name, split in (("old", "train"), ("new", "other")):
        (folder / name).mkdir()
        rows = "".join(f"film {number},{('good', 'bad')[number % 2]}\n" for number in range(20))
        (folder / name / f"{split}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    (folder / "share").mkdir()
    (folder / "share" / "share.py").write_text(METRIC, encoding="utf-8")
    repositories = {
        "models/acme/tiny": {"main": folder / "first", "v2": folder / "second"},
        "models/acme/words": {"main": folder / "words"},
        "models/acme/bare": {"main": folder / "bare"},
        "models/acme/gated": {"main": folder / "first"},
        "datasets/acme/reviews": {"main": folder / "new", "v1": folder / "old"},
        "spaces/acme/share": {"main": folder / "share"},
    }
    with hub(repositories) as running:
        running.gated.add("models/acme/gated")
        yield Site(running, folder)


@pytest.fixture(scope="module")
def fetched(site: Site) -> Finished:
    return site.prefetch("home", *flags(JOB)).expect(0)


@pytest.mark.long
def test_a_job_trains_without_a_network_interface_from_what_was_prefetched(site: Site, fetched: Finished) -> None:
    command = [*namespaces.command("net"), sys.executable, str(TRAIN), *flags(JOB, output_dir="run")]
    run(command, site.environ("home", offline=True), site.folder, 120).expect(0)
    assert (site.folder / "run" / "results.json").is_file()


@pytest.mark.long
def test_the_output_says_what_was_fetched_from_where_and_how_much(site: Site, fetched: Finished) -> None:
    model, words = site.hub.revision("models/acme/tiny", "v2")[:12], site.hub.revision("models/acme/words")[:12]
    data = site.hub.revision("datasets/acme/reviews", "v1")[:12]
    lines = fetched.stdout.splitlines()
    size = (site.folder / "second" / "model.safetensors").stat().st_size
    assert lines[0] == f"model      acme/tiny at v2: commit {model}, {size / 1e3:.1f} kB to fetch"
    assert lines[1] == f"tokenizer  acme/words: commit {words}, with the model"
    assert lines[2].startswith(f"dataset    acme/reviews at v1: commit {data}, ")
    assert lines[3:5] == ["metric     accuracy: part of Muster", "metric     acme/share: on the hub"]
    assert lines[5].startswith("fetched    ")
    assert lines[5].endswith(f"into {site.folder}/home")
    assert lines[6:] == ["verified   all of it loads with HF_HUB_OFFLINE=1"]


@pytest.mark.long
def test_a_second_prefetch_uses_the_cache_and_a_dry_run_fetches_nothing(site: Site, fetched: Finished) -> None:
    done = site.prefetch("home", *flags(JOB), own=["--dry_run"]).expect(0)
    assert "acme/tiny at v2: commit" in done.stdout
    assert done.stdout.splitlines()[-1] == f"to fetch   0 bytes of weights and data into {site.folder}/home"
    empty = site.prefetch("empty", *flags(JOB), own=["--dry_run"]).expect(0)
    data, model = (site.folder / "old" / "train.csv", site.folder / "second" / "model.safetensors")
    size = data.stat().st_size + model.stat().st_size
    assert (
        empty.stdout.splitlines()[-1] == f"to fetch   {size / 1e3:.1f} kB of weights and data into {site.folder}/empty"
    )
    assert not [path for path in (site.folder / "empty").rglob("*") if path.is_file()]


REJECTED: dict[str, tuple[dict[str, object], str]] = {
    "no repository": ({"model_name_or_path": "acme/nothing"}, "no model acme/nothing at http://"),
    "no revision": ({"dataset_revision": "v9"}, "the dataset acme/reviews has no branch, tag or commit v9"),
    "gated": ({"model_name_or_path": "acme/gated", "model_revision": "main"},
              "the model acme/gated is gated: accept its terms at"),
    "no split": ({"validation_split_name": "dev"}, "acme/reviews has no split dev; its splits: train"),
    "no such metric": ({"metrics": "acme/none"}, "--metrics acme/none cannot be loaded"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("case", REJECTED)
def test_a_failed_fetch_is_reported_in_one_line(case: str, site: Site) -> None:
    changes, message = REJECTED[case]
    done = site.prefetch("rejected", *flags(JOB, **changes)).expect(2)
    assert len(done.errors) == 1, done.stderr
    assert message in done.errors[0]
    assert "Traceback" not in done.stderr


def test_the_error_for_a_private_repository_names_the_token(site: Site) -> None:
    gated = flags({"model_name_or_path": "acme/gated", "train_file": site.folder / "old" / "train.csv"})
    assert "then set HF_TOKEN to a token of your account" in site.prefetch("rejected", *gated).errors[0]
    with_token = site.prefetch("rejected", *gated, HF_TOKEN="canary-0123")
    assert with_token.errors[0].endswith(", then try again")
    assert "canary" not in with_token.stderr + with_token.stdout


def test_a_private_hub_and_a_wrong_token(site: Site, tmp_path: Path) -> None:
    with hub({"models/acme/tiny": {"main": site.folder / "first"}}, token="canary-0123") as private:
        words = flags({"model_name_or_path": "acme/tiny", "train_file": site.folder / "old" / "train.csv"})
        other = Site(private, tmp_path)
        assert "if it is private, set HF_TOKEN" in other.prefetch("home", *words).expect(2).errors[0]
        wrong = other.prefetch("home", *words, HF_TOKEN="wrong").expect(2).errors[0]
        assert wrong.endswith("does not accept HF_TOKEN: set it to a valid token, or unset it")
        other.prefetch("home", *words, own=["--dry_run"], HF_TOKEN="canary-0123").expect(0)


def test_without_a_network_or_with_the_hub_switched_off_nothing_is_fetched(site: Site) -> None:
    words = flags(JOB)
    off = site.prefetch("rejected", *words, HF_HUB_OFFLINE="1").expect(2).errors
    assert off == ["error: HF_HUB_OFFLINE is set, so nothing can be fetched: HF_HUB_OFFLINE=0 in front of this command "
                   "allows it"]  # fmt: skip
    command = [*namespaces.command("net"), sys.executable, "-m", "launch", "prefetch", "--", *words]
    done = run(command, {**site.environ("rejected"), "PYTHONPATH": str(ROOT)}, site.folder, 120).expect(2)
    assert f"the hub cannot be reached ({site.hub.endpoint} does not answer: " in done.errors[-1]
    assert "start this where there is a network, or set HTTPS_PROXY" in done.errors[-1]


def test_a_cache_that_cannot_be_written_or_has_no_room_is_named(site: Site) -> None:
    blocked = site.folder / "file"
    blocked.write_text("", encoding="utf-8")
    done = site.prefetch("rejected", *flags(JOB), HF_HOME=f"{blocked}/home").expect(2)
    assert done.errors[0].startswith(f"error: {blocked}/home cannot be written (Not a directory): set HF_HOME to ")
    small = on_a_disk_of("28k", site)
    assert f"must be fetched, but {site.folder}/small/hub has only " in small
    assert small.endswith(" free: make room there, or set HF_HOME to a folder on a larger disk")


@pytest.mark.long
def test_a_disk_that_becomes_full_is_named(site: Site) -> None:
    """There is room for weights and data, but not for the rest."""
    assert on_a_disk_of("40k", site).startswith(
        f"error: the disk of {site.folder}/small/hub is full: make room there, "
    )


def on_a_disk_of(size: str, site: Site) -> str:
    """The output where HF_HOME is a separate file system."""
    home = site.folder / "small"
    home.mkdir(exist_ok=True)
    command = shlex.join([sys.executable, "-m", "launch", "prefetch", "--", *flags(JOB)])
    words = [*namespaces.command("mount"), "sh", "-c", f"mount -t tmpfs -o size={size} none {home} && exec {command}"]
    return run(words, {**site.environ("small"), "PYTHONPATH": str(ROOT)}, site.folder, 120).expect(2).errors[0]


@pytest.mark.long
def test_a_repository_that_its_library_cannot_open_offline_is_found_before_the_job(site: Site) -> None:
    """Transformers looks for the config.json of a tokenizer: on the hub its absence is an answer, in the cache not."""
    done = site.prefetch("bare", *flags(JOB, tokenizer_name="acme/bare")).expect(2)
    assert done.errors[0].startswith(
        "error: what was fetched does not load with the hub switched off: the tokenizer of "
    )


@pytest.mark.long
def test_a_tokenizer_is_fetched_for_a_model_that_is_already_here_and_is_to_be_uploaded(site: Site) -> None:
    job = {
        "model_name_or_path": "./first",
        "tokenizer_name": "acme/words",
        "train_file": "old/train.csv",
        "max_steps": 1,
    }
    done = site.prefetch("local", *flags(job), "--push_to_hub", HF_TOKEN="hf_of_the_upload").expect(0)
    assert done.stdout.splitlines()[-1] == "verified   all of it loads with HF_HUB_OFFLINE=1"
    command = [sys.executable, str(TRAIN), *flags(job, output_dir="local-run")]
    run(command, site.environ("local", offline=True), site.folder, 120).expect(0)


@pytest.mark.long
def test_the_cache_gets_the_files_that_an_online_job_reads_and_no_others(site: Site, fetched: Finished) -> None:
    run(
        [sys.executable, str(TRAIN), *flags(JOB, output_dir="online")], site.environ("online"), site.folder, 120
    ).expect()
    assert snapshots(site.folder / "home") == snapshots(site.folder / "online")
    assert not [name for name in snapshots(site.folder / "home") if name.endswith((".bin", ".md"))]


def test_a_file_that_another_process_renames_meanwhile_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(bytes(7))
    (tmp_path / "part.incomplete").touch()
    listed = list(os.walk(tmp_path))
    (tmp_path / "part.incomplete").unlink()
    monkeypatch.setattr(os, "walk", lambda _: listed)
    assert prefetch._cached_files(tmp_path) == {tmp_path / "weights": 7}


def snapshots(home: Path) -> set[str]:
    """The files of the hub in a cache, each under its repository and commit."""
    files = {str(path.relative_to(home)) for path in (home / "hub").glob("*--*/snapshots/*/**/*") if path.is_file()}
    assert "model.safetensors" in {Path(name).name for name in files}
    return files
