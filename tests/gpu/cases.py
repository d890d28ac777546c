"""One case in a process of its own: `python -m tests.gpu.cases NAME --device cuda --work FOLDER`.

What a case prints is shown under its name; it has held if nothing is raised.
"""

from __future__ import annotations

import argparse
import math
import re
import signal
import time
from pathlib import Path
from typing import Any

from job.runtime import environment
from tests.gpu.jobs import Job, Series, Setting, apart

HALF_TOLERANCE, TF32_TOLERANCE = 0.1, 0.02
"""Largest difference of a loss in 24 steps. Products of bf16 have 8 bits, of TF32 11, and steps carry errors on."""
OTHER_SHAPES = ("modernbert", "qwen3")
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", *OTHER_SHAPES)
MOST_GRAPHS = 4
"""Training, evaluation, and for either another where a micro-batch has a single row."""


def machine(setting: Setting) -> None:
    import accelerate
    import datasets
    import pyarrow
    import torch
    import transformers

    from tests.bench.machine import flops_per_second, layer_shapes

    gpu = torch.cuda.get_device_properties(0)
    print(gpu.name, f"{gpu.total_memory / 2**30:.1f} GiB, capability {gpu.major}.{gpu.minor}")
    print("torch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())
    print(", ".join(f"{m.__name__} {m.__version__}" for m in (transformers, accelerate, datasets, pyarrow)))
    square = flops_per_second([(8192, 8192, 8192)], "bf16", "cuda", 0.5)
    layer = flops_per_second(layer_shapes(16384, 768, 3072), "bf16", "cuda", 0.5)
    print(f"products in bf16: {square / 1e12:.0f} TFLOP/s of 8192, {layer / 1e12:.0f} of BERT-base's layers")
    assert torch.cuda.is_bf16_supported(including_emulation=False)


def cudnn(setting: Setting) -> None:
    import torch

    from job import distributed
    from job.config import Config

    distributed.start(Config())
    assert not torch.backends.cuda.cudnn_sdp_enabled(), "the job lets cuDNN compute attention"

    def milliseconds(rows: int, width: int) -> float:
        query = torch.randn(rows, 12, width, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        mask = (torch.arange(width, device="cuda") < width - 3).expand(rows, 1, width, width)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        attended = torch.nn.functional.scaled_dot_product_attention(query, query, query, mask, dropout_p=0.1)
        attended.sum().backward()
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begun)

    shapes = ((7, 511), (9, 403), (11, 307), (13, 211), (17, 151), (19, 97))
    for allowed in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(allowed)
        for width in (64, 65):  # loads the kernels for widths that are aligned and that are not
            milliseconds(4, width)
        new = [round(milliseconds(*shape), 1) for shape in shapes]
        print(f"cuDNN {'on' if allowed else 'off'}: six new shapes take {new} ms, the first again "
              f"{milliseconds(*shapes[0]):.1f}")  # fmt: skip
    assert max(new) < 50, f"new shapes take up to {max(new)} ms with cuDNN off"


def kernels(setting: Setting) -> None:
    from tests.gpu.kernels import check_all

    check_all()


def families(setting: Setting) -> None:
    """Without dropout; the weights are large, so that attention decides."""
    tolerances = {"no": 5e-3, "fp16": 3e-2, "bf16": 0.2} if setting.on_gpu else {"no": 1e-4}
    short = ("--max_steps", "6", "--train_batch_size", "32", "--learning_rate", "1e-4")
    started = {}
    for family in FAMILIES if setting.on_gpu else FAMILIES[:1]:
        model = ("--model_name_or_path", str(_loud_model(setting.work / "models" / family, family)), *short)
        runs: dict[str, tuple[str, ...]] = {}
        for precision in tolerances:
            runs[f"packed-{precision}"] = (*model, "--mixed_precision", precision)
            runs[f"padded-{precision}"] = (*model, "--mixed_precision", precision, "--no_packing")
        started[family] = Series(setting, family, runs)
    wrong = []
    for family, series in started.items():
        if not series.ended_well():
            wrong.append(family)
            continue
        for precision, tolerance in tolerances.items():
            packed, padded = (series[f"{form}-{precision}"] for form in ("packed", "padded"))
            forward = str(packed.manifest["forward"])
            losses = apart(packed.losses, padded.losses)
            probabilities = apart(packed.probabilities, padded.probabilities)
            print(f"{family} {precision}: {forward}; losses {losses:.1e} apart, probabilities {probabilities:.1e}")
            if not forward.startswith("packed") or max(losses, probabilities) > tolerance:
                wrong.append(f"{family} {precision}")
    assert not wrong, f"wrong: {wrong}"


def lora(setting: Setting) -> None:
    """The base model is held in bf16, the adapter in fp32."""
    flags = ("--lora_rank", "8", "--lora_alpha", "16", "--mixed_precision", "bf16", "--learning_rate", "1e-2")
    packed = Job(setting, "packed", *flags)
    padded = Job(setting, "padded", *flags, "--no_packing")
    packed.ends(), padded.ends()
    off = apart(packed.losses, padded.losses)
    print(f"{packed.manifest['forward']}; losses {off:.1e} apart, the last {packed.losses[-1]:.3f}")
    assert off < HALF_TOLERANCE
    assert packed.losses[-1] < packed.losses[0] or not setting.on_gpu, "it does not learn"


def _loud_model(folder: Path, family: str) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    from tests.support import families
    from tests.support.tiny import tiny_model

    if family in OTHER_SHAPES:
        families.make(family, folder, hidden_size=64)
    else:
        tiny_model(folder, architecture=family, num_labels=None, dropout=0.0, hidden=64)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    loud = {n: w if w.ndim < 2 else 0.15 * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    save_file(loud, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def losses(setting: Setting) -> None:
    bf16 = ("--mixed_precision", "bf16")
    runs: dict[str, tuple[str, ...]] = {"cpu": ("--no_packing",)}
    if setting.on_gpu:
        runs |= {
            "tf32": (),
            "tf32, padded": ("--no_packing",),
            "bf16": bf16,
            "bf16, padded": (*bf16, "--no_packing"),
            "bf16, cut small": (*bf16, "--max_tokens_per_device", "600"),
            "bf16, recomputed": (*bf16, "--gradient_checkpointing"),
            "fp16": ("--mixed_precision", "fp16"),
        }
    else:
        runs["cut small"] = ("--max_tokens_per_device", "600")
    hidden = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    started = {
        name: Job(setting, name.replace(", ", "-"), *flags, env=hidden if name == "cpu" else {})
        for name, flags in runs.items()
    }
    reference = started.pop("cpu")
    wrong = []
    for name, job in started.items():  # they end first: what failed is printed though the reference may take too long
        job.process.wait()
        if job.process.returncode:
            wrong.append(name)
            print(f"{name}: exit code {job.process.returncode}\n{job.log[-2000:]}")
        else:
            print(f"{name}: losses {[round(loss, 3) for loss in job.losses[::6]]}")
    reference.ends()
    for name, job in started.items():
        if name in wrong:
            continue
        off = apart(job.losses, reference.losses)
        answers = float((job.probabilities.argmax(1) == reference.probabilities.argmax(1)).mean())
        print(f"{name}: {job.manifest['forward']}; losses {off:.1e} off, {answers:.1%} of the predictions the same")
        tolerance = TF32_TOLERANCE if "tf32" in name else HALF_TOLERANCE
        if off > (tolerance if setting.on_gpu else 1e-4) or answers < 0.95:
            wrong.append(name)
    assert not wrong, f"wrong: {wrong}"


def compiled(setting: Setting) -> None:
    bf16 = ("--mixed_precision", "bf16")
    plain = Job(setting, "plain", *bf16)
    fast = Job(setting, "compiled", *bf16, "--torch_compile", watch=["graphs"])
    plain.ends(), fast.ends()
    off = apart(plain.losses, fast.losses)
    (counted,) = re.findall(r"^graphs (\d+), breaks (\d+)$", fast.log, re.MULTILINE)
    graphs, breaks = map(int, counted)
    print(f"{fast.manifest['forward']}; {graphs} graphs, {breaks} breaks; losses {off:.1e} apart")
    assert off < HALF_TOLERANCE
    assert 0 < graphs <= MOST_GRAPHS and breaks == 0, "compiled for each shape, or only in part"


def waits(setting: Setting) -> None:
    forms = {
        "bf16": ("bf16",),
        "padded": ("bf16", "--no_packing"),
        "fp16": ("fp16",),
        "tf32": ("no", "--attention_dropout", "0"),
    }
    dropout = ("--model_name_or_path", str(setting.world / "model"), "--logging_steps", "100")
    started = {
        name: Job(setting, name, *dropout, "--mixed_precision", *flags, watch=["waits"])
        for name, flags in forms.items()
    }
    for name, job in started.items():
        job.ends()
        print(f"{name}: nothing waited for the device in steps 3 to 20; {job.manifest['forward']}")


def overflow(setting: Setting) -> None:
    flags = ("--mixed_precision", "fp16", "--max_steps", "40")
    job = Job(setting, "overflow", *flags, watch=["scale=1099511627776"]).ends()
    print([round(loss, 3) for loss in job.losses])
    lines = [line for line in job.log.splitlines() if "skipped" in line]
    print(*lines, sep="\n")
    assert all(map(math.isfinite, job.losses)) and job.losses[-1] < job.losses[0], "it does not learn"
    assert lines, "steps were skipped and nothing says so"


def memory(setting: Setting) -> None:
    """One micro-batch a step: its backward pass is where memory ends. Dropout 0: the cut does not change the losses."""
    one = ("--train_batch_size", "768", "--max_tokens_per_device", "65536", "--eval_max_tokens_per_device", "65536")
    flags = (*one, "--max_steps", "4", "--mixed_precision", "bf16")
    sizes = ("2.1", "1.7", "1.0", "0.5")
    plenty = Job(setting, "plenty", *flags, watch=["peak"])
    tight = {size: Job(setting, size, *flags, watch=[f"gib={size}", "peak"]) for size in sizes}
    plenty.ends()
    print("plenty:", [line for line in plenty.log.splitlines() if line.startswith("peak")])
    wrong = []
    for size, job in tight.items():
        job.process.wait()
        lines = [line[:150] for line in job.log.splitlines() if "out of memory" in line or line.startswith("peak")]
        print(f"{size} GiB: exit code {job.process.returncode}", *lines[:6], sep="\n   ")
        if job.process.returncode:
            print(job.log[-1500:])
        if job.process.returncode or apart(job.losses, plenty.losses) > 0.02:
            wrong.append(size)
    assert not wrong, f"wrong with {wrong} GiB"


def stop(setting: Setting) -> None:
    fixed = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    flags = ("--model_name_or_path", str(setting.world / "model"), "--max_steps", "200", "--save_steps", "40",
             "--mixed_precision", "bf16")  # fmt: skip
    options: dict[str, Any] = {"watch": ["deterministic"], "env": fixed}
    whole, cut = (Job(setting, name, *flags, **options) for name in ("whole", "cut"))
    metrics = cut.folder / "metrics.jsonl"
    while cut.process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 60):
        time.sleep(0.02)
    cut.process.send_signal(signal.SIGTERM)
    cut.ends(75)
    resumed = Job(setting, "cut", *flags, **options).ends()
    whole.ends()
    weights = [(job.folder / "model" / "model.safetensors").read_bytes() for job in (whole, resumed)]
    off = apart(whole.losses, resumed.losses)
    print(f"losses {off:.1e} apart, weights {'equal to the bit' if weights[0] == weights[1] else 'not equal'}")
    assert off == 0.0 and weights[0] == weights[1], "resumed on the GPU differs"


def nccl(setting: Setting) -> None:
    job = Job(setting, "nccl", "--mixed_precision", "bf16", processes=1).ends()
    print(f"{len(job.losses)} steps, loss {job.losses[-1]:.3f}")


def two_ranks(setting: Setting) -> None:
    one = Job(setting, "one")
    two = Job(setting, "two", processes=2, watch=["gloo"])
    one.ends(), two.ends()
    off = apart(one.losses, two.losses)
    print(f"losses {off:.1e} apart")
    assert off < TF32_TOLERANCE


def rejected(setting: Setting) -> None:
    few = Job(setting, "few", processes=2)
    few.process.wait()
    lines = [line for line in few.log.splitlines() if line.startswith("error: ")]
    print(f"two processes, one GPU: {lines}")
    assert few.process.returncode and len(lines) == 1 and "GPU" in lines[0], few.log[-3000:]
    hidden = Job(setting, "hidden", "--max_steps", "1", env={"CUDA_VISIBLE_DEVICES": "99"})
    hidden.process.wait()
    lines = [line for line in hidden.log.splitlines() if line.startswith("error: ")]
    print(f"a GPU that is masked: {lines}")
    assert hidden.process.returncode == 2 and len(lines) == 1, hidden.log[-3000:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--device", required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    environment.prepare()
    work = options.work / options.case
    work.mkdir()
    globals()[options.case](Setting(options.device, options.work / "world", work))


if __name__ == "__main__":
    main()
