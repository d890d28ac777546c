"""The image at run time: isolated, as any user, with the same result as outside; and what `docker-run` adds."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.image.building import CANARY, IMAGE, ROOT, Built
from tests.image.engine import Docker
from tests.support.tiny import tiny_model

SEALED = ("--rm", "--network=none", "--user=12345:12345", "--read-only", "--cap-drop=ALL", "--env=OMP_NUM_THREADS=1")
SHORT = ("--max_train_samples", "128", "--max_eval_samples", "64", "--max_seq_length", "32", "--max_steps", "3")


def writable(folder: Path) -> tuple[str, ...]:
    """Options that give the container three writable folders and no others."""
    for name in ("out", "hf", "tmp"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o777)
    mounts = (f"--volume={folder / name}:/{name}dir" for name in ("out", "hf", "tmp"))
    return (*mounts, "--env=HF_HOME=/hfdir", "--env=TMPDIR=/tmpdir")


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one-line error of a container that was rejected."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def sealed(docker: Docker, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short demo in a container without network, capabilities, user name or home."""
    folder = tmp_path_factory.mktemp("sealed")
    done = docker("run", *SEALED, *writable(folder), IMAGE, "demo", *SHORT, "--output_dir", "/outdir/run")
    assert "on       1 process on cpu" in done.stderr
    return folder / "out" / "run"


def test_an_isolated_container_predicts_the_same_as_this_environment(sealed: Path, tmp_path: Path) -> None:
    words = ("demo", *SHORT, "--output_dir", str(tmp_path / "run"))
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "launch", "local", "--gpus=0", "--", *words], env=environ, check=True)
    for name in ("predictions.parquet", "model/model.safetensors"):
        assert (sealed / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


def test_the_predict_command_of_the_image_answers_like_the_job_outside(
    docker: Docker, sealed: Path, tmp_path: Path
) -> None:
    options = (*writable(tmp_path), f"--volume={sealed / 'model'}:/model:ro")
    (tmp_path / "out" / "new.csv").write_text("text\n" + 'Return the mean of an array.\n""\n' * 9, encoding="ascii")
    words = ("predict", "--model_name_or_path", "/model", "--test_file", "/outdir/new.csv", "--output_dir")
    docker("run", *SEALED, *options, IMAGE, *words, "/outdir/answers")
    own = {"/model": str(sealed / "model"), "/outdir/new.csv": str(tmp_path / "out" / "new.csv")}
    outside = (*(own.get(word, word) for word in words[1:]), str(tmp_path / "outside"))
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, str(ROOT / "job" / "predict.py"), *outside], env=environ, check=True)
    answers, expected = tmp_path / "out" / "answers", tmp_path / "outside"
    assert pq.read_metadata(answers / "test_predictions.parquet").num_rows == 18
    name = "test_predictions.parquet"
    assert (answers / name).read_bytes() == (expected / name).read_bytes()
    results = (answers / "results.json").read_text(encoding="utf-8")  # its notes name the file
    assert results.replace("/outdir", str(tmp_path / "out")) == (expected / "results.json").read_text(encoding="utf-8")


def test_files_it_writes_belong_to_the_user(sealed: Path) -> None:
    assert {path.stat().st_uid for path in sealed.rglob("*")} == {12345}


def test_an_unknown_user_has_a_name_and_a_home(docker: Docker, built: Built) -> None:
    script = "import getpass, pathlib, tempfile; (pathlib.Path.home() / 'x').touch(); print(getpass.getuser())"
    words = (*SEALED, "--tmpfs=/tmp", "--entrypoint=python", IMAGE, "-c", script)
    assert docker("run", *words).stdout == "muster\n"


def test_a_wrong_flag_is_rejected_in_one_line(docker: Docker, built: Built) -> None:
    done = docker("run", *SEALED, "--tmpfs=/tmp", IMAGE, "--lerning_rate", "1", check=False)
    assert refusal(done) == "error: unknown flag --lerning_rate; did you mean --learning_rate?\n"


def test_a_full_output_volume_is_rejected_before_training(docker: Docker, built: Built) -> None:
    words = (*SEALED, "--tmpfs=/tmp", "--tmpfs=/out:size=20m,mode=1777", IMAGE, "demo", *SHORT, "--output_dir", "/out")
    done = docker("run", *words, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the disk of /out has 21 MB free, but the run needs ")


def test_an_unwritable_folder_is_rejected_in_one_line(docker: Docker, built: Built) -> None:
    words = (*SEALED, "--tmpfs=/tmp", IMAGE, "demo", *SHORT, "--output_dir", "/opt/run")
    assert "/opt/run cannot be written: Read-only file system" in refusal(docker("run", *words, check=False))


def test_the_images_code_runs_and_not_that_of_the_working_folder(docker: Docker, built: Built, tmp_path: Path) -> None:
    for name in ("job.py", "launch.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')\n", encoding="ascii")
    tmp_path.chmod(0o755)
    words = (*SEALED, "--tmpfs=/tmp", f"--volume={tmp_path}:/here:ro", "--workdir=/here", IMAGE, "--help")
    assert "--learning_rate" in docker("run", *words).stdout


def test_torch_compile_finds_its_compiler(docker: Docker, built: Built, tmp_path: Path) -> None:
    data = "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40))
    options = writable(tmp_path)
    tiny_model(tmp_path / "out" / "tiny", layers=1)
    (tmp_path / "out" / "data.csv").write_text(data, encoding="ascii")
    for path in (tmp_path / "out").rglob("*"):
        path.chmod(0o755)
    words = ("--model_name_or_path", "/outdir/tiny", "--train_file", "/outdir/data.csv", "--torch_compile")
    docker("run", *SEALED, *options, IMAGE, *words, "--max_steps", "2", "--output_dir", "/outdir/run")
    assert list((tmp_path / "tmp").rglob("*.so")), "nothing was compiled"


# ---------------------------------------------------------------------------------------------------------------------
# make docker-run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with data, a secret in .env, and no access for others."""
    (tmp_path / ".env").write_text(f'export HF_TOKEN="{CANARY}-token"  # mine\n', encoding="ascii")
    rows = "".join(f"text number {i},{'even' if i % 2 == 0 else 'odd'}\n" for i in range(64))
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data" / "train, all.csv").write_text(f"text,label\n{rows}", encoding="ascii")
    tmp_path.chmod(0o700)
    return tmp_path


def test_docker_run_reads_and_writes_in_the_working_folder(docker: Docker, built: Built, project: Path) -> None:
    words = ("--image", IMAGE, "--", "--train_file", "my data/train, all.csv", "--output_dir", "out", *SHORT)
    environ = {**docker.environment, "PYTHONPATH": str(ROOT), "HF_HOME": str(project / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "launch", "docker", *words]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (project / "out" / "model" / "model.safetensors").is_file()
    assert (project / "out" / "predictions.parquet").stat().st_uid == os.getuid()
    assert not (project / "runs").exists()
    assert docker.inspect(IMAGE, ".Id") in (project / "out" / "manifest.json").read_text(encoding="utf-8")
    written = [path.read_bytes() for path in project.rglob("*") if path.is_file() and path.name != ".env"]
    assert len(written) > 8
    assert not any(CANARY.encode() in content for content in (*written, done.stdout.encode(), done.stderr.encode()))


def test_no_container_outlives_its_job(docker: Docker, sealed: Path) -> None:
    assert docker("ps", "--all", "--quiet", f"--filter=ancestor={IMAGE}").stdout == ""
