"""Weights of transformers: equal outputs, equal tensors after a round trip, errors for the rest.

Our model and theirs are compared as in `test_backends` with the naive model in fp64, within the
band of its parameters' rounding errors.  Theirs are built from configurations, with random weights.
"""

import json
import math
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

import fused_attention as fa
from fused_attention.models import BERT, GPT, ViT

from ..helpers.budget import distance
from ..models.cases import LENGTHS, config, ids

TOKENS = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
REAL = torch.arange(11) < LENGTHS[:, None]  # (2, 11)
DRAWS = 4
ROPE = {"rope_theta": 50.0}


def gpt2(theirs=GPT2LMHeadModel, **options):
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16, **TOKENS}
    return theirs(GPT2Config(**{**sizes, **options}))


def decoder(theirs, hf_config, **options):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": 16}
    return theirs(hf_config(**{**sizes, **TOKENS, **options}))


def llama(theirs=LlamaForCausalLM, **options):
    return decoder(theirs, LlamaConfig, **options)


def mistral(**options):
    return decoder(MistralForCausalLM, MistralConfig, **options)


def bert(theirs=BertModel, parts=(), **options):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 16, **TOKENS}
    return theirs(BertConfig(**{**sizes, **options}), *parts)


def vit(**options):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 40, "image_size": 12, "patch_size": 4, "num_labels": 7}
    return ViTForImageClassification(ViTConfig(**{**sizes, **options}))


CASES = {
    "gpt2": gpt2,
    "gpt2-wide": lambda: gpt2(n_embd=48, n_head=2, n_layer=1, n_inner=20, n_positions=11),
    "gpt2-erf": lambda: gpt2(activation_function="gelu"),
    "gpt2-tanh": lambda: gpt2(activation_function="gelu_pytorch_tanh"),
    "gpt2-relu": lambda: gpt2(activation_function="relu", layer_norm_epsilon=1e-2),
    "gpt2-untied": lambda: gpt2(tie_word_embeddings=False),
    "llama": llama,
    "llama-one-kv-head": lambda: llama(num_key_value_heads=1, rms_norm_eps=1e-2),
    "llama-mha-tied": lambda: llama(num_key_value_heads=4, tie_word_embeddings=True),
    "llama-bias": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama-geglu": lambda: llama(hidden_act="gelu_pytorch_tanh"),
    "llama-theta": lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 50.0}),
    "llama-head-dim": lambda: llama(head_dim=12),
    "llama-linear": lambda: llama(rope_parameters={**ROPE, "rope_type": "linear", "factor": 3.0}),
    "llama-3.1": lambda: llama(
        rope_parameters={
            **ROPE,
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 9,
        }
    ),
    "mistral-3": lambda: mistral(sliding_window=3),
    "mistral-1": lambda: mistral(sliding_window=1),
    "mistral-wide": mistral,
    "mistral-none": lambda: mistral(sliding_window=None, head_dim=8),
    "bert": bert,
    "bert-plain": lambda: bert(parts=(False,)),
    "bert-tanh": lambda: bert(hidden_act="gelu_new", type_vocab_size=3, layer_norm_eps=1e-2),
    "bert-relu": lambda: bert(hidden_act="relu", num_attention_heads=1),
    "bert-mlm": lambda: bert(BertForMaskedLM),
    "bert-mlm-untied": lambda: bert(BertForMaskedLM, tie_word_embeddings=False),
    "vit": vit,
    "vit-tanh": lambda: vit(hidden_act="gelu_new", layer_norm_eps=1e-2),
    "vit-gray": lambda: vit(num_channels=1, image_size=8, patch_size=2, num_labels=2),
}


def build(case):
    """Their model, no parameter of which is zero or one, and ours with its weights."""
    torch.manual_seed(0)
    theirs = CASES[case]() if isinstance(case, str) else case()
    theirs.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in theirs.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator)
        if isinstance(theirs, BertForMaskedLM):
            theirs.cls.predictions.decoder.bias.copy_(theirs.cls.predictions.bias)
    theirs.eval()
    return theirs, ours_of(theirs)(theirs.state_dict(), theirs.config)


def ours_of(theirs):
    kind = {"gpt2": GPT, "llama": GPT, "mistral": GPT, "bert": BERT, "vit": ViT}
    return kind[theirs.config.model_type].from_hf_state_dict


@torch.no_grad()
def outputs(model):
    """One tensor of all outputs of a model, theirs or ours, at tokens that are not padding."""
    if hasattr(model, "patches") or hasattr(model, "vit"):
        c = model.config
        channels = c.channels if hasattr(model, "patches") else c.num_channels
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, channels, c.image_size, c.image_size, generator=generator)
        found = model(images.to(next(model.parameters()).dtype))
        return found if hasattr(model, "patches") else found.logits
    x, kinds = ids(2, 11), ids(2, 11, seed=1) % 2
    if isinstance(model, GPT):
        return model(x, key_padding=LENGTHS)[REAL]
    if isinstance(model, BERT):
        hidden = model(x, kinds, LENGTHS)
        if model.mlm_head is not None:
            return model.predict(hidden)[REAL]
        pooled = () if model.pooler is None else (model.pool(hidden).flatten(),)
        return torch.cat([hidden[REAL].flatten(), *pooled])
    if model.config.model_type != "bert":
        return model(x, attention_mask=REAL.long()).logits[REAL]
    found = model(x, token_type_ids=kinds, attention_mask=REAL.long())
    if isinstance(model, BertForMaskedLM):
        return found.logits[REAL]
    pooled = () if found.pooler_output is None else (found.pooler_output.flatten(),)
    return torch.cat([found.last_hidden_state[REAL].flatten(), *pooled])


def band(model, exact) -> float:
    """The largest change of the outputs over a few random choices of the errors' signs."""
    state, effect = {k: v.clone() for k, v in model.state_dict().items()}, 0.0
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        with torch.no_grad():
            for p in model.parameters():
                roundings = 1 + math.log2(max(2, *p.shape))
                signs = 2 * torch.randint(0, 2, p.shape, generator=generator) - 1
                p *= 1 + roundings * torch.finfo(torch.float32).eps * signs
        effect = max(effect, distance(outputs(model), exact))
        model.load_state_dict(state)
    return effect


@pytest.mark.parametrize("case", CASES)
def test_outputs(case):
    theirs, ours = build(case)
    fused, hugging_face = outputs(ours), outputs(theirs)
    ours.attention = "naive"
    plain = outputs(ours)
    exact = outputs(ours.double())
    allowed = 2 * distance(plain, exact) + band(ours, exact)
    assert exact.std() > 0.1 and allowed < 1e-3
    assert distance(fused, exact) <= allowed
    assert distance(hugging_face, exact) <= allowed


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    """Equal bits in both directions, by exactly the names of transformers."""
    theirs, ours = build(case)
    back = ours.to_hf_state_dict()
    assert_same(back, theirs.state_dict())
    theirs.load_state_dict(back)
    again = ours_of(theirs)(back, theirs.config.to_dict())
    assert_same(again.state_dict(), ours.state_dict())
    assert again.config == ours.config and not again.training
    with torch.no_grad():  # nothing is shared
        for tensor in back.values():
            tensor.zero_()
        for p in theirs.parameters():
            p.zero_()
    assert_same(ours.state_dict(), again.state_dict())


def test_dtype_and_gradients():
    theirs, _ = build("llama")
    ours = GPT.from_hf_state_dict(theirs.to(torch.bfloat16).state_dict(), theirs.config)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert ours.stack.positions.cos.dtype == torch.float32
    ours(ids(2, 5)).float().sum().backward()
    assert all(p.grad.any() for p in ours.parameters())


@pytest.mark.parametrize(
    ("model", "base"),
    [(gpt2, GPT2Model), (lambda theirs: llama(theirs, tie_word_embeddings=True), LlamaModel)],
)
def test_decoders_without_a_head(model, base):
    """With tied embeddings a head has no weights of its own."""
    theirs = model(base)
    ours = GPT.from_hf_state_dict(theirs.state_dict(), theirs.config)
    assert torch.equal(ours.embedding.weight, theirs.get_input_embeddings().weight)


def test_older_files():
    """Buffers beside the weights, and names from before version 5."""
    theirs, ours = build("gpt2")
    old = {**theirs.state_dict(), "transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16)}
    assert_same(GPT.from_hf_state_dict(old, theirs.config).state_dict(), ours.state_dict())
    theirs, ours = build("bert-mlm")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): x
        for key, x in theirs.state_dict().items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(16)[None]
    assert_same(BERT.from_hf_state_dict(old, theirs.config).state_dict(), ours.state_dict())
    theirs, ours = build("vit")
    renamed = (
        ("layers.", "encoder.layer."),
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    )
    old = {}
    for key, x in theirs.state_dict().items():
        for new, before in renamed:
            key = key.replace(new, before)
        old[key] = x
    assert "vit.encoder.layer.1.output.dense.bias" in old
    assert_same(ViT.from_hf_state_dict(old, theirs.config).state_dict(), ours.state_dict())


@pytest.mark.parametrize("case", ["gpt2", "gpt2-untied", "mistral-3", "bert-mlm", "bert", "vit"])
def test_load(case, tmp_path):
    theirs, ours = build(case)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    beside = json.loads((tmp_path / "config.json").read_text())
    for hf_config in (None, theirs.config, beside, tmp_path / "config.json"):
        found = fa.models.load(path, hf_config)
        assert type(found) is type(ours) and found.config == ours.config
        assert_same(found.state_dict(), ours.state_dict())


def test_written_weights_can_be_saved(tmp_path):
    theirs, ours = build("llama-mha-tied")
    save_file(ours.to_hf_state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    theirs.config.save_pretrained(tmp_path)
    assert_same(LlamaForCausalLM.from_pretrained(tmp_path).state_dict(), theirs.state_dict())


def test_ignored_keys():
    theirs = bert(BertForPreTraining)
    surplus = "cls.seq_relationship.weight, cls.seq_relationship.bias"
    with pytest.raises(ValueError, match=f"surplus keys: {surplus}$"):
        BERT.from_hf_state_dict(theirs.state_dict(), theirs.config)
    ignore = ("cls.seq_relationship.",)
    ours = BERT.from_hf_state_dict(theirs.state_dict(), theirs.config, ignore=ignore)
    assert ours.pooler is not None and ours.mlm_head is not None


def test_every_wrong_key_is_listed():
    theirs, _ = build("gpt2")
    state = theirs.state_dict()
    del state["transformer.h.1.ln_1.bias"], state["transformer.wpe.weight"]
    state |= {"transformer.h.2.ln_1.bias": torch.ones(32), "score.weight": torch.ones(2)}
    state["transformer.ln_f.bias"] = torch.ones(33)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(ValueError) as error:
        GPT.from_hf_state_dict(state, theirs.config)
    assert str(error.value) == (
        "state_dict: missing keys: transformer.wpe.weight, transformer.h.1.ln_1.bias; "
        "surplus keys: transformer.h.2.ln_1.bias, score.weight; "
        "wrong shapes: transformer.ln_f.bias (33,), expected (32,); "
        "tied in the configuration, but different: lm_head.weight and transformer.wte.weight"
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: gpt2(activation_function="silu"), "activation_function 'silu' .* gelu, gelu_new"),
        (lambda: gpt2(scale_attn_weights=False), "scale_attn_weights False"),
        (lambda: gpt2(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        (lambda: gpt2(reorder_and_upcast_attn=True), "reorder_and_upcast_attn True"),
        (lambda: gpt2(add_cross_attention=True), "add_cross_attention True"),
        (lambda: llama(hidden_act="relu"), "hidden_act 'relu'"),
        (lambda: llama(attention_bias=True), "mlp_bias False is not supported, only True"),
        (
            lambda: llama(
                rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
            ),
            "rope_type 'dynamic' with factor is not supported, only default, linear, llama3",
        ),
        (lambda: bert(is_decoder=True), "is_decoder True"),
        (lambda: bert(hidden_act="silu"), "hidden_act 'silu'"),
        (lambda: bert(BertForMaskedLM, hidden_act="relu"), "hidden_act 'relu' .* only 'gelu'"),
        (lambda: vit(qkv_bias=False), "qkv_bias False"),
    ],
)
def test_unsupported_options(model, message):
    theirs = model()
    with pytest.raises(NotImplementedError, match=f"hf_config: {message}"):
        ours_of(theirs)(theirs.state_dict(), theirs.config)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"model_type": "t5"},
            NotImplementedError,
            "model_type 't5' is not supported, only bert, gpt2, llama, mistral, vit are",
        ),
        ({"model_type": "bert"}, ValueError, "hf_config: a bert is a BERT, not a GPT"),
        ({"n_embd": None}, ValueError, "hf_config: expected a field n_embd"),
        ({"quantization_config": {}}, NotImplementedError, "quantization_config {} is not"),
        ({"n_head": 5}, ValueError, "num_heads: expected a divisor of dim, 32, got 5"),
    ],
)
def test_configurations(changes, error, message):
    theirs = gpt2()
    fields = {**theirs.config.to_dict(), **changes}
    if fields["n_embd"] is None:
        del fields["n_embd"]
    with pytest.raises(error, match=message):
        GPT.from_hf_state_dict(theirs.state_dict(), fields)


@pytest.mark.parametrize("window", [0, -1, 2**30 + 2, 2**31])
def test_windows_that_cannot_be(window):
    """The message says the number of the configuration, which counts the query's own token."""
    theirs = mistral()
    fields = {**theirs.config.to_dict(), "sliding_window": window}
    with pytest.raises(ValueError, match=f"hf_config: sliding_window: .* tokens, got {window}$"):
        GPT.from_hf_state_dict(theirs.state_dict(), fields)


def test_a_subclass_loads_what_its_base_does(tmp_path):
    class Subclass(GPT):
        pass

    theirs, ours = build("llama")
    found = Subclass.from_hf_state_dict(theirs.state_dict(), theirs.config)
    assert type(found) is Subclass
    assert_same(found.state_dict(), ours.state_dict())
    assert_same(found.to_hf_state_dict(), theirs.state_dict())
    with pytest.raises(ValueError, match="hf_config: a bert is a BERT, not a Subclass"):
        Subclass.from_hf_state_dict({}, bert().config)
    theirs.save_pretrained(tmp_path)
    assert type(fa.models.load(tmp_path / "model.safetensors")) is GPT


def test_dropouts():
    theirs = gpt2(embd_pdrop=0.3, resid_pdrop=0.2, attn_pdrop=0.0)
    found = GPT.from_hf_state_dict(theirs.state_dict(), theirs.config).config
    assert (found.embedding_dropout, found.dropout, found.attention_dropout) == (0.3, 0.2, 0.0)


def test_older_configurations():
    """Fields that older versions of config.json lack or call by another name."""
    theirs, ours = build("llama-theta")
    fields = {k: v for k, v in theirs.config.to_dict().items() if k != "rope_parameters"}
    fields |= {"rope_theta": 50.0, "rope_scaling": None}
    del fields["tie_word_embeddings"], fields["head_dim"], fields["attention_dropout"]
    assert GPT.from_hf_state_dict(theirs.state_dict(), fields).config == ours.config
    fields["rope_scaling"] = {"type": "dynamic", "factor": 4.0}
    with pytest.raises(NotImplementedError, match="rope_type 'dynamic' with factor"):
        GPT.from_hf_state_dict(theirs.state_dict(), fields)


def test_misuse(tmp_path, monkeypatch):
    theirs = gpt2()
    with pytest.raises(TypeError, match="hf_config: expected a transformers config or a dict"):
        GPT.from_hf_state_dict(theirs.state_dict(), "gpt2")
    with pytest.raises(TypeError, match=r"expected tensors, transformer.wte.weight is list"):
        GPT.from_hf_state_dict({"transformer.wte.weight": [1.0]}, theirs.config)
    with pytest.raises(ValueError, match=r"path: expected a .safetensors file, got model.bin"):
        fa.models.load(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError):
        fa.models.load(tmp_path / "model.safetensors", theirs.config)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"pip install 'fused-attention\[pretrained\]'$"):
        fa.models.load(tmp_path / "model.safetensors", theirs.config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: GPT(config(position="alibi")), "position 'alibi'; none has position 'alibi'"),
        (lambda: GPT(config(num_kv_heads=2)), "has num_heads / num_kv_heads 2.0; none has"),
        (lambda: GPT(config(window=3)), "has window 3; none"),
        (lambda: GPT(config(scale_embeddings=True)), "has scale_embeddings True; none"),
        (lambda: BERT(config()), "prenorm True, embedding_norm False$"),
        (lambda: ViT(config(image_size=8, patch_size=4, activation="swiglu")), "'swiglu'$"),
    ],
)
def test_options_that_transformers_lacks(model, message):
    with pytest.raises(NotImplementedError, match=f"to_hf_state_dict: no model .*{message}"):
        model().to_hf_state_dict()
