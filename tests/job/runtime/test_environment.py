"""The environment: literal values of .env, precedence of the real environment, and the available cores."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from job.errors import Refused
from job.runtime import environment

ROOT = Path(__file__).parents[3]
ACCELERATE = Path(sys.executable).with_name("accelerate")
PRINT_THREADS = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from job.runtime import environment
before = os.environ.get("OMP_NUM_THREADS")
environment.prepare()
print(before, os.environ["OMP_NUM_THREADS"])
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of this test alone: empty, in an empty folder, with no checkout that could have an .env."""
    here: dict[str, str] = {}
    system = SimpleNamespace(**{**vars(os), "environ": here})
    monkeypatch.setattr(environment, "os", system)  # not os.environ: pytest writes there
    monkeypatch.setattr(environment, "ROOT", tmp_path / "checkout")
    (tmp_path / "checkout").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return here


def test_dotenv_is_not_read_in_a_container_that_the_launcher_started(bare: dict[str, str]) -> None:
    """It may name GPUs by their numbers on the host, which are others inside."""
    Path(".env").write_text("CUDA_VISIBLE_DEVICES=2\n", encoding="utf-8")
    bare["MUSTER_OWNER"] = "docker:box:muster-mrpc"
    assert environment.load_dotenv() == {} and "CUDA_VISIBLE_DEVICES" not in bare
    bare["MUSTER_OWNER"] = "slurm-token"
    assert environment.load_dotenv() == {"CUDA_VISIBLE_DEVICES": "2"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("A = b", "b"),
        ("A=", ""),
        ('A="b c # d"', "b c # d"),
        ("A='b \"c\"'", 'b "c"'),
        ("A=b # a remark", "b"),
        ("A=b#c", "b#c"),
        ("A=s3cr$t${HOME}", "s3cr$t${HOME}"),
        ("A=b=c", "b=c"),
        ("A=grüße", "grüße"),
        ("# A=no\nA=b", "b"),
    ],
)
def test_lines_of_dotenv_are_parsed(line: str, value: str, bare: dict[str, str]) -> None:
    Path(".env").write_text(f"{line}\n", encoding="utf-8")
    environment.load_dotenv()
    assert bare == {"A": value}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
def test_dotenv_may_have_a_bom_and_any_line_endings(newline: str, mark: str, bare: dict[str, str]) -> None:
    lines = ["# a remark", "A=b # another", 'B="c d"', "C=", "D=e"]
    Path(".env").write_bytes((mark + newline.join(lines)).encode())
    environment.load_dotenv()
    assert bare == {"A": "b", "B": "c d", "C": "", "D": "e"}


def test_a_name_without_a_value_sets_nothing(bare: dict[str, str]) -> None:
    Path(".env").write_text("A\n")
    environment.load_dotenv()
    assert bare == {}


def test_environment_variables_take_precedence_even_if_empty(bare: dict[str, str]) -> None:
    Path(".env").write_text("A=file\nB=file\nC=file\n")
    bare.update(A="real", B="")
    environment.load_dotenv()
    assert bare == {"A": "real", "B": "", "C": "file"}


def test_dotenv_of_the_working_folder_takes_precedence_over_the_checkouts(bare: dict[str, str]) -> None:
    (environment.ROOT / ".env").write_text("A=checkout\nB=checkout\n")
    environment.load_dotenv()
    assert bare == {"A": "checkout", "B": "checkout"}
    bare.clear()
    Path(".env").write_text("A=here\n")
    environment.load_dotenv()
    assert bare == {"A": "here"}


def test_dotenv_that_is_not_utf8_is_rejected(bare: dict[str, str]) -> None:
    Path(".env").write_bytes("A=grüße\n".encode("latin-1"))
    with pytest.raises(Refused) as caught:
        environment.load_dotenv()
    assert (
        str(caught.value)
        == f"{Path.cwd() / '.env'} cannot be read as UTF-8 text (UnicodeDecodeError): save it as UTF-8"
    )


@pytest.mark.parametrize("name", environment.OFFLINE)
@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_one_offline_variable_sets_all_of_them(name: str, value: str, bare: dict[str, str]) -> None:
    bare[name] = value
    environment.prepare()
    assert {switch: bare[switch] for switch in environment.OFFLINE} == dict.fromkeys(environment.OFFLINE, "1")


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_an_offline_variable_that_is_off_sets_nothing(value: str, bare: dict[str, str]) -> None:
    bare["HF_HUB_OFFLINE"] = value
    environment.prepare()
    assert bare["HF_HUB_OFFLINE"] == value and "TRANSFORMERS_OFFLINE" not in bare


def test_an_offline_variable_in_dotenv_applies(bare: dict[str, str]) -> None:
    Path(".env").write_text("HF_HUB_OFFLINE=1\n")
    environment.prepare()
    assert bare["HF_DATASETS_OFFLINE"] == "1"


def test_preparing_is_idempotent(bare: dict[str, str]) -> None:
    environment.prepare()
    once = dict(bare)
    environment.prepare()
    assert bare == once


ACCELERATED = {"ACCELERATE_MIXED_PRECISION": "no"}
TWO_HERE = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("own", "launchers", "expected"),
    [
        pytest.param({}, {}, 8, id="python, nothing set"),
        pytest.param({"OMP_NUM_THREADS": "3"}, {}, 3, id="python, set by the user"),
        pytest.param({"OMP_NUM_THREADS": "1"}, {}, 1, id="python, set to 1 by the user"),
        pytest.param({"OMP_NUM_THREADS": "3"}, None, 3, id="python, parent unreadable"),
        pytest.param({"OMP_NUM_THREADS": "1"} | ACCELERATED, {}, 8, id="accelerate set 1"),
        pytest.param({"OMP_NUM_THREADS": "1"} | ACCELERATED, {"OMP_NUM_THREADS": "1"}, 1, id="accelerate, user set 1"),
        pytest.param({"OMP_NUM_THREADS": "5"} | ACCELERATED, {"OMP_NUM_THREADS": "5"}, 5, id="accelerate, user set 5"),
        pytest.param({"OMP_NUM_THREADS": "1"} | ACCELERATED, None, 8, id="accelerate set 1, unreadable"),
        pytest.param({"OMP_NUM_THREADS": "5"} | ACCELERATED, None, 5, id="accelerate, user set 5, unreadable"),
        pytest.param({"OMP_NUM_THREADS": "1"} | TWO_HERE, {}, 4, id="torchrun set 1, two processes here"),
        pytest.param({"OMP_NUM_THREADS": "2"} | TWO_HERE, {"OMP_NUM_THREADS": "2"}, 2, id="torchrun, user set 2"),
        pytest.param({"OMP_NUM_THREADS": "1"} | TWO_HERE, None, 4, id="torchrun set 1, unreadable"),
        pytest.param({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, {}, 4, id="no LOCAL_WORLD_SIZE: all are taken as here"),
        pytest.param({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "64"}, {}, 1, id="more processes than cores"),
        pytest.param({"OMP_NUM_THREADS": "0"}, {}, 8, id="0 is no number of threads"),
        pytest.param({"OMP_NUM_THREADS": "many"}, {}, 8, id="nor is a word"),
    ],
)
def test_threads(
    own: dict[str, str], launchers: dict[str, str] | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 8)
    assert environment.threads(own, launchers) == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("nonsense", 4), (None, 4)],
)
def test_cores_are_the_affinity_or_the_containers_quota(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(environment, "Path", lambda _: file)
    assert environment.cores() == expected


@pytest.mark.parametrize(("variable", "plan"), environment.PLANNED_ELSEWHERE.items())
def test_a_launcher_plan_for_another_kind_of_training_is_rejected(variable: str, plan: str) -> None:
    environment.refuse_launcher_plans({variable: "false"})
    with pytest.raises(Refused) as caught:
        environment.refuse_launcher_plans({variable: "true"})
    assert str(caught.value) == (
        f"the accelerate configuration enables {plan} ({variable}), but only data parallelism (DDP) is supported: "
        "choose another configuration with `accelerate config` or --config_file, or unset the variable"
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "2", "LOCAL_RANK": "1"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"},
        {"ACCELERATE_DYNAMO_BACKEND": "NO"},
    ],
)
def test_ordinary_launches_are_accepted(environ: dict[str, str]) -> None:
    environment.refuse_launcher_plans(environ)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """OMP_NUM_THREADS of a process of `accelerate launch`, before and after prepare, by what the user had set."""
    settings = {"nothing": ({}, ""), "1": ({"OMP_NUM_THREADS": "1"}, ""), "1 in .env": ({}, "OMP_NUM_THREADS=1\n")}
    started = {}
    for name, (own, dotenv) in settings.items():
        folder = tmp_path_factory.mktemp("launched")
        (folder / ".env").write_text(dotenv)
        (folder / "program.py").write_text(PRINT_THREADS)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "ACCELERATE_", "LOCAL_", "WORLD_"))}
        options = ["--num_processes=1", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
        started[name] = subprocess.Popen(
            [ACCELERATE, "launch", *options, "program.py"],
            cwd=folder,
            env={**kept, **own, "HF_HOME": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )
    return {name: process.communicate(timeout=120)[0].split() for name, process in started.items()}


@pytest.mark.long
@pytest.mark.skipif(not shutil.which(ACCELERATE) or environment.cores() == 1, reason="needs accelerate and two cores")
@pytest.mark.parametrize(("users", "expected"), [("nothing", environment.cores()), ("1", 1), ("1 in .env", 1)])
def test_accelerate_launch_uses_all_cores_unless_the_user_limits_them(
    users: str, expected: int, launched: dict[str, list[str]]
) -> None:
    assert launched[users] == ["1", str(expected)]  # the first: accelerate did set 1, so that there is a thing to undo


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize("kept", [True, False])
def test_the_allocator_keeps_freed_memory_without_restarting_the_process(kept: bool, tmp_path: Path) -> None:
    """A block of 16 MB is freed: with the defaults of glibc it goes back to the kernel at once."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import ctypes, os, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom job.runtime import environment\n"
        f"if {kept}: environment.keep_freed_memory()\n"
        "def held(): return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "before, libc, size = held(), ctypes.CDLL(None), 2**24\n"
        "libc.malloc.restype = ctypes.c_void_p\nblock = libc.malloc(ctypes.c_size_t(size))\n"
        "ctypes.memset(block, 1, size)\nlibc.free(ctypes.c_void_p(block))\nprint(held() - before > size // 2)\n"
    )
    given = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, str(script)], env=given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{kept}\n"


@pytest.mark.parametrize("users", [{}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": ""}])
def test_gpu_memory_uses_expandable_segments_unless_configured_otherwise(
    bare: dict[str, str], users: dict[str, str]
) -> None:
    bare |= {"HOME": "/", **users}
    environment.set_gpu_allocator()
    actual = {name: value for name, value in bare.items() if name.startswith("PYTORCH")}
    assert actual == (users or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})


# ---------------------------------------------------------------------------------------------------------------------
# A node without a home


@pytest.mark.parametrize("home", ["", "/nonexistent"])
def test_an_unusable_home_is_replaced_by_one_in_tmpdir(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(environment.tempfile, "gettempdir", lambda: str(tmp_path))
    environment.provide_home()
    assert Path(os.environ["HOME"]) == tmp_path / f"muster-home-{os.getuid()}"
    assert os.access(os.environ["HOME"], os.W_OK)
    assert f"using {tmp_path}/muster-home-{os.getuid()}" in capfd.readouterr().err


def test_a_usable_home_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environment.provide_home()
    assert os.environ["HOME"] == str(tmp_path)
