"""Attention of job/model/cuda_attention.py against plain attention in fp64, gradients and dropout included.

Which probabilities a kernel drops cannot be chosen, but it can be read off: with rows of the identity as values, the
output of a sequence is the matrix of its dropped probabilities. Outputs and gradients are compared under that mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import torch

from job.model import cuda_attention
from job.model.attention_spec import AttentionSpec

LENGTHS = (64, 1, 17, 33, 64, 2, 50)
BOUNDS = torch.tensor((0, *torch.tensor(LENGTHS).cumsum(0).tolist()), dtype=torch.int32)
TOKENS, LONGEST, HEADS = sum(LENGTHS), 70, 4
TOLERANCE = {torch.float32: 2e-3, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Relative error of a norm. Gradients of queries and keys are differences of close numbers, so not 2**-8 in bf16."""


@dataclass(frozen=True)
class Form:
    """The inputs of the kernel."""

    dtype: torch.dtype
    channels: int = 64
    key_heads: int = HEADS
    one_each: bool = False
    causal: bool = False
    window: int | None = None
    dropout: float = 0.0

    def __str__(self) -> str:
        shape = f"{str(self.dtype)[6:]:8} D {self.channels:3} H {HEADS}/{self.key_heads} dropout {self.dropout}"
        words = ["one query each" * self.one_each, "causal" * self.causal, f"window {self.window}" * bool(self.window)]
        return " ".join([shape, *filter(None, words)])


def forms() -> list[Form]:
    half, whole = (torch.bfloat16, torch.float16), (torch.float32,)
    plain = [Form(dtype, channels) for dtype, channels in product(half + whole, (20, 32, 64, 128, 256))]
    masks = [
        Form(dtype, key_heads=heads, one_each=one_each, causal=causal)
        for dtype, heads, one_each, causal in product(half + whole, (HEADS, 1), (False, True), (False, True))
    ]
    windows = [Form(dtype, causal=causal, window=5) for dtype, causal in product(half, (False, True))]
    windows += [Form(dtype, one_each=True, causal=True, window=5) for dtype in half]
    dropped = [
        Form(dtype, channels, one_each=one_each, causal=causal, dropout=0.1)
        for dtype, channels, one_each, causal in product(half, (64, 128), (False, True), (False, True))
    ]
    return [*plain, *masks, *windows, *dropped]


def check(form: Form, generator: torch.Generator) -> float:
    """The largest relative error, of output and gradients; AssertionError where it is too large."""
    queries = len(LENGTHS) if form.one_each else TOKENS
    shapes = [(queries, HEADS, form.channels), *[(TOKENS, form.key_heads, form.channels)] * 2]
    low = [torch.randn(shape, generator=generator).to("cuda", form.dtype).requires_grad_() for shape in shapes]
    exact = [x.detach().double().cpu().requires_grad_() for x in low]
    kept = masks(form, low) if form.dropout else None
    state = torch.cuda.get_rng_state()
    query, key, value = low
    output = attend(form, query, key, value)
    if kept is not None:
        torch.cuda.set_rng_state(state)
        again = attend(form, query, key, value)
        assert torch.equal(output, again), f"{form}: the same random state drops something else"
    expected = reference(form, exact[0], exact[1], exact[2], kept)
    gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.backward(gradient.to("cuda", form.dtype))
    expected.backward(gradient)
    pairs: list[Any] = [(output, expected), *((a.grad, b.grad) for a, b in zip(low, exact, strict=True))]
    error = max(float((a.detach().double().cpu() - b.detach()).norm() / b.detach().norm()) for a, b in pairs)
    assert error < TOLERANCE[form.dtype], f"{form}: error {error:.1e}"
    return error


def attend(form: Form, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shift: int = 0) -> torch.Tensor:
    """`shift` moves every inner bound: deliberately wrong."""
    bounds = BOUNDS.clone()
    bounds[1:-1] += shift
    spec = AttentionSpec(form.dropout, form.channels**-0.5, form.causal, form.window)
    return cuda_attention.attend(query, key, value, bounds.cuda(), LONGEST, spec)


def masks(form: Form, low: list[torch.Tensor]) -> list[torch.Tensor]:
    """bool[H, queries, keys] of each sequence: what the next call keeps. Leaves the random state as it was."""
    identity = torch.zeros(TOKENS, form.key_heads, form.channels)
    for begin, end in pairwise(BOUNDS.tolist()):
        identity[begin:end] = torch.eye(end - begin, form.channels)[:, None]
    state = torch.cuda.get_rng_state()
    dropped = attend(form, low[0].detach(), low[1].detach(), identity.to("cuda", form.dtype)).cpu()
    torch.cuda.set_rng_state(state)
    visible = [visible_of(form, end - begin) for begin, end in pairwise(BOUNDS.tolist())]
    kept = [rows[..., :length] != 0 for rows, length in zip(_split(form, dropped), LENGTHS, strict=True)]
    kept = [mask.permute(1, 0, 2) for mask in kept]
    seen = sum(int(mask.sum()) for mask in kept) / (HEADS * sum(int(mask.sum()) for mask in visible))
    if not form.one_each:  # with one query each there are too few to count
        assert abs(1 - seen - form.dropout) < 0.02, f"{form}: {1 - seen:.3f} of the probabilities are dropped"
    return kept


def visible_of(form: Form, length: int) -> torch.Tensor:
    """bool[queries, keys] of a sequence."""
    row, column = torch.arange(length)[:, None], torch.arange(length)[None]
    seen = torch.ones(length, length, dtype=torch.bool)
    if form.causal:
        seen &= column <= row
    if form.window is not None:
        seen &= (row - column).abs() <= form.window
    if form.one_each:
        return seen[-1:] if form.causal else seen[:1]
    return seen


def reference(form: Form, query: Any, key: Any, value: Any, kept: list[torch.Tensor] | None) -> torch.Tensor:
    """Plain attention in fp64, of one sequence after the other."""
    shared = HEADS // form.key_heads
    key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    outputs = []
    for number, (rows, (begin, end)) in enumerate(zip(_split(form, query), pairwise(BOUNDS.tolist()), strict=True)):
        scores = torch.einsum("qhd,khd->hqk", rows, key[begin:end]) * form.channels**-0.5
        weights = scores.masked_fill(~visible_of(form, end - begin), -torch.inf).softmax(-1)
        if kept is not None:
            weights = weights * kept[number] / (1 - form.dropout)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, value[begin:end]))
    return torch.cat(outputs)


def _split(form: Form, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return rows.split([1] * len(LENGTHS) if form.one_each else list(LENGTHS))


def check_all() -> None:
    generator = torch.Generator().manual_seed(0)
    failed = []
    for form in forms():
        try:
            print(f"{form}: error {check(form, generator):.1e}")
        except (AssertionError, RuntimeError) as error:
            failed.append(f"{form}: {type(error).__name__} {' '.join(str(error).split())[:300]}")
            print("WRONG", failed[-1])
    assert not failed, f"{len(failed)} forms are wrong"
    check_that_wrong_bounds_are_seen(generator)
    look_at_fp32_dropout()


def look_at_fp32_dropout() -> None:
    """Whether PyTorch's kernel for fp32 still gives every head the same mask, for which the job does not use it."""
    query, key = (torch.randn(1, TOKENS, HEADS, 64, device="cuda") for _ in range(2))
    value = torch.zeros(TOKENS, HEADS, 64)
    for begin, end in pairwise(BOUNDS.tolist()):
        value[begin:end] = torch.eye(end - begin, 64)[:, None]
    bounds = BOUNDS.cuda()
    kept = torch.ops.aten._efficient_attention_forward(
        query, key, value.cuda()[None], None, bounds, bounds, LONGEST, LONGEST, 0.1, 0, True
    )[0][0, : LENGTHS[0]].ne(0)
    alike = float((kept == kept[:, :1]).float().mean())
    print(f"fp32 dropout: {alike:.0%} of a sequence's probabilities are kept or dropped alike in all heads "
          f"({'as known' if alike > 0.99 else 'fixed: packing may use it'})")  # fmt: skip


def check_that_wrong_bounds_are_seen(generator: torch.Generator) -> None:
    """Were sequences cut one token too late, the comparison above would say so."""
    form = Form(torch.bfloat16)
    q, k, v = (torch.randn(TOKENS, HEADS, form.channels, generator=generator) for _ in range(3))
    right = reference(form, q.double(), k.double(), v.double(), None)
    on_gpu = [x.to("cuda", form.dtype) for x in (q, k, v)]
    wrong = attend(form, on_gpu[0], on_gpu[1], on_gpu[2], shift=1).double().cpu()
    error = float((wrong - right).norm() / right.norm())
    assert error > 5 * TOLERANCE[form.dtype], f"sequences cut one token late are only {error:.1e} off"
