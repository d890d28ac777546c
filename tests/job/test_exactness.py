"""The same numbers on one process and on several: predictions, counts and gradients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score

from tests.support.launch import PREDICT, cold, environment, torchrun
from tests.support.tiny import tiny_model

WORKER = Path(__file__).parent / "workers" / "exactness.py"
SIZES = [*range(1, 18), 103]
LIMITS = (24, 60, 4096)
EXAMPLES = 12
FORMS = ("packed", "padded")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """World size -> folder with a folder for each form."""
    model, folders = tmp_path_factory.mktemp("model"), {}
    tiny_model(model, num_labels=None, dropout=0.0)
    sizes, limits = (",".join(map(str, numbers)) for numbers in (SIZES, LIMITS))
    for world in (1, 2, 3):
        out = folders[world] = tmp_path_factory.mktemp(f"world{world}")
        arguments = (str(out), str(model), str(world), sizes, limits, str(EXAMPLES))
        torchrun(world, WORKER, *arguments, env=environment(out / "home"), cwd=out).expect(0)
    return folders


@pytest.fixture(scope="module", params=FORMS)
def predicted(made: dict[int, Path], request: pytest.FixtureRequest) -> dict[int, Path]:
    """World size -> folder with the predictions for every size."""
    return {world: folder / request.param for world, folder in made.items()}


@pytest.mark.parametrize("world", [2, 3])
def test_predictions_are_identical_bytes_on_any_number_of_processes(predicted: dict[int, Path], world: int) -> None:
    for size in SIZES:
        one, several = (predicted[w] / f"{size}.parquet" for w in (1, world))
        assert one.read_bytes() == several.read_bytes(), f"{size} examples on {world} processes"


@pytest.mark.long
def test_predictions_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """With matrices large enough for MKL to divide their products by the number of threads."""
    tiny_model(tmp_path / "model", hidden=384)
    rows = [f"{chr(97 + i % 26) * (1 + i % 7)} {'word ' * (1 + i % 11)}" for i in range(200)]
    (tmp_path / "test.csv").write_text("text\n" + "\n".join(rows) + "\n")
    words = ["--model_name_or_path", "model", "--test_file", "test.csv"]
    for threads in ("1", "2"):
        env = environment(tmp_path / "home", OMP_NUM_THREADS=threads)
        cold(PREDICT, *words, "--output_dir", threads, env=env, cwd=tmp_path).expect(0)
    one, two = ((tmp_path / threads / "test_predictions.parquet").read_bytes() for threads in ("1", "2"))
    assert one == two


@pytest.mark.parametrize("world", [1, 2, 3])
def test_correct_count_equals_scikit_learn_on_the_file(predicted: dict[int, Path], world: int) -> None:
    correct = json.loads((predicted[world] / "correct.json").read_text())
    assert set(correct) == {str(size) for size in SIZES}
    for size in SIZES:
        table = pq.read_table(predicted[world] / f"{size}.parquet")
        assert table["index"].to_pylist() == list(range(size))
        expected = accuracy_score(table["label"].to_pylist(), table["prediction"].to_pylist(), normalize=False)
        assert correct[str(size)] == expected


def test_the_comparison_detects_a_lost_or_duplicated_row(predicted: dict[int, Path]) -> None:
    table = pq.read_table(predicted[1] / "103.parquet").to_pandas()
    right = (table["label"] == table["prediction"]).sum()
    assert 0 < right < 103
    assert table[[c for c in table.columns if c.startswith("probability_")]].drop_duplicates().shape[0] > 90


@pytest.fixture(scope="module")
def gradients(made: dict[int, Path]) -> dict[tuple[str, int, int], dict[str, np.ndarray]]:
    """(form, world size, token limit) -> gradients and loss of the same twelve examples."""
    return {(form, world, limit): load_file(folder / form / f"{limit}.safetensors")
            for world, folder in made.items() for form in FORMS for limit in LIMITS}  # fmt: skip


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("laid_out", FORMS)
def test_the_gradient_of_a_global_batch_does_not_depend_on_processes_micro_batches_or_packing(
    gradients: dict[tuple[str, int, int], dict[str, np.ndarray]], world: int, limit: int, laid_out: str
) -> None:
    whole, cut = gradients["padded", 1, 4096], gradients[laid_out, world, limit]
    assert set(whole) == set(cut)
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("limit", LIMITS)
def test_the_gradient_of_adapters_does_not_depend_on_processes_or_micro_batches(
    made: dict[int, Path], world: int, limit: int
) -> None:
    whole, cut = (load_file(made[w] / "adapted" / f"{tokens}.safetensors") for w, tokens in ((1, 4096), (world, limit)))
    assert set(whole) == set(cut)
    for part in ("lora_A", "lora_B", "modules_to_save"):
        assert max(np.abs(value).max() for name, value in whole.items() if part in name) > 1e-3, part
    assert not any("base_layer" in name or "embeddings" in name for name in whole), "frozen"
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def weighted(made: dict[int, Path]) -> dict[tuple[str, str, int, int], dict[str, np.ndarray]]:
    """(weighted or per-process, form, world size, token limit) -> the same with class weights and label smoothing."""
    return {(kind, form, world, limit): load_file(folder / form / f"{kind}-{limit}.safetensors")
            for kind in ("weighted", "per-process") for world, folder in made.items() for form in FORMS
            for limit in LIMITS}  # fmt: skip


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("laid_out", FORMS)
def test_with_class_weights_the_gradient_equals_that_of_torchs_weighted_mean(
    made: dict[int, Path],
    weighted: dict[tuple[str, str, int, int], dict[str, np.ndarray]],
    world: int,
    limit: int,
    laid_out: str,
) -> None:
    whole, cut = load_file(made[1] / laid_out / "by-torch.safetensors"), weighted["weighted", laid_out, world, limit]
    assert set(whole) == set(cut)
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("world", [2, 3])
def test_dividing_by_the_weights_of_each_process_gives_another_gradient(
    gradients: dict[tuple[str, int, int], dict[str, np.ndarray]],
    weighted: dict[tuple[str, str, int, int], dict[str, np.ndarray]],
    world: int,
) -> None:
    whole = weighted["weighted", "padded", 1, 24]["classifier.weight"]
    wrong = [weighted["per-process", form, world, limit]["classifier.weight"] for form in FORMS for limit in LIMITS]
    assert max(np.abs(one - whole).max() for one in wrong) > 5e-4
    assert np.abs(gradients["padded", 1, 24]["classifier.weight"] - whole).max() > 1e-3, "the weights change something"


def test_gradients_are_large_enough_for_a_meaningful_comparison(
    gradients: dict[tuple[str, int, int], dict[str, np.ndarray]],
) -> None:
    whole = gradients["padded", 1, 4096]
    assert max(np.abs(value).max() for name, value in whole.items() if name != "loss") > 1e-2
    mean_of_halves = 0.5 * whole["classifier.weight"]  # what averaging twice would give
    assert np.abs(mean_of_halves - whole["classifier.weight"]).max() > 1e-3
