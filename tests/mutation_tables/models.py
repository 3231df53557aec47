"""The transformer."""

from .mutation import torch

MODELS_DIR = "fused_attention/models/"
MODELS = tuple(
    torch(name, f"{MODELS_DIR}{file}.py", old, new, f"models/test_{test}")
    for name, file, old, new, test in (
        (
            "sdpa forgets the variants",
            "backends",
            "attn_mask=mask, **options",
            "**options",
            "backends.py::test_agreement[gpt-alibi-pre-sdpa]",
        ),
        (
            "the switch does nothing",
            "model",
            "module.backend = backend",
            "pass",
            "backends.py::test_switching",
        ),
        (
            "the stream not passed on",
            "block",
            "return layer(x, **options), stream",
            "return layer(x, **options), x",
            "literature.py::test_residual_stream[True]",
        ),
        (
            "scores of T5 mirrored",
            "positions",
            "torch.arange(1 - seqlen, seqlen, device",
            "-torch.arange(1 - seqlen, seqlen, device",
            "masking.py::test_ragged_tokens[t5-True]",
        ),
        (
            "buckets of the future used by a causal stack",
            "positions",
            "buckets, past = len(self.weight), (-distance).clamp(min=0)",
            "buckets, past = len(self.weight), distance.abs()",
            "literature.py::test_t5_buckets[True]",
        ),
        (
            "a distance too few",
            "transformer_xl",
            "return F.pad(x, (1, 0)).reshape(*x.shape[:2], keys + 1, rows)[:, :, 1:]",
            "return F.pad(x, (0, 1)).reshape(*x.shape[:2], keys + 1, rows)[:, :, :-1]",
            "masking.py::test_relative_scores_against_the_formula",
        ),
        (
            "the memory not detached",
            "transformer_xl",
            "self.length) :].detach())",
            "self.length) :])",
            "masking.py::test_segments_see_what_one_long_segment_sees",
        ),
        (
            "a causal stack that sees the future",
            "block",
            "(causal(),) if self.causal else ()",
            "()",
            "masking.py::test_later_tokens_do_not_leak[rotary-fused]",
        ),
        (
            "padded sources seen",
            "block",
            '"variants": _padding(context_lengths)',
            '"variants": ()',
            "masking.py::test_padded_sources_do_not_leak[fused]",
        ),
        (
            "ragged tokens numbered from the first",
            "block",
            "device=x.device) if step is None else step.positions",
            "device=x.device)",
            "masking.py::test_ragged_tokens[learned-True]",
        ),
        (
            "tables follow the dtype of the model",
            "positions",
            "dtype = torch.promote_types(moved.dtype, torch.float32)",
            "dtype = moved.dtype",
            "errors.py::test_half_precision_keeps_exact_tables",
        ),
        (
            "every masked token a mask",
            "objectives",
            "fate < 0.8, self.mask_id",
            "fate < 1.0, self.mask_id",
            "training.py::test_masked_tokens",
        ),
        (
            "sentinels that count up",
            "objectives",
            "torch.tensor([self.sentinel - i])",
            "torch.tensor([self.sentinel + i])",
            "training.py::test_corrupted_spans",
        ),
        (
            "residual projections as large as the others",
            "initialise",
            "std = 0.02 / math.sqrt(2 * model.config.num_layers)",
            "std = 0.02",
            "training.py::test_initialisation",
        ),
    )
)
GENERATION = tuple(
    torch(name, f"{MODELS_DIR}{file}.py", old, new, f"models/test_generation.py::test_{test}")
    for name, file, old, new, test in (
        (
            "wrong guesses kept in the cache",
            "generation",
            "length = min(seq.length, len(text.tokens) - 1)",
            "length = seq.length",
            "greedy_is_recomputation[0]",
        ),
        (
            "keys missed that have left the window",
            "generation",
            "0 if seq.dropped and length < gone else length",
            "length",
            "a_draft_goes_back_behind_its_window[*]",
        ),
        (
            "ended sequences keep their pages",
            "generation",
            "writer.settle(texts, going)",
            "writer.settle(going, going)",
            "tokens_are_streamed_and_stop_tokens_end_a_sequence",
        ),
        (
            "every guess kept",
            "sampling",
            "if random.random() >= float(row[token] / guess[token]):",
            "if False:",
            "verify_keeps_the_distribution_of_the_target[1]",
        ),
        (
            "a wrong guess replaced by what p alone would say",
            "sampling",
            "torch.where(rest.sum() > 0, rest, row)",
            "row",
            "verify_keeps_the_distribution_of_the_target[2]",
        ),
        (
            "guesses drawn from the target's sampling without the draft's odds",
            "sampling",
            "float(row[token] / guess[token])",
            "float(row[token])",
            "what_is_sampled_is_the_distribution[plain-True]",
        ),
        (
            "a token too few in top_p",
            "sampling",
            "before = p.cumsum(-1) - p",
            "before = p.cumsum(-1)",
            "distribution",
        ),
        (
            "a random number that falls on the edge",
            "sampling",
            "<= u[:, None]",
            "< u[:, None]",
            "pick_draws_nothing_impossible",
        ),
        (
            "one stream of random numbers for a prompt",
            "generation",
            'Random(f"{seed} {i} {copy}")',
            'Random(f"{seed} {i}")',
            "seeds[False]",
        ),
        (
            "dropout while generating",
            "generation",
            "    model.eval()",
            "    pass",
            "dropout_is_off_meanwhile",
        ),
        (
            "a prompt for every sequence",
            "generation",
            "self.seqs[text] = self.cache.fork(self.seqs[first])",
            "self.seqs[text] = self.cache.new(); self.last([text], [[]])",
            "a_prompt_is_stored_once",
        ),
        (
            "a page too few",
            "request",
            "self.copies * (pages - shared) + 1",
            "self.copies * (pages - shared)",
            "greedy_is_recomputation[*]",
        ),
    )
)
PRETRAINED = tuple(
    torch(name, f"{MODELS_DIR}{file}.py", old, new, f"models/test_pretrained.py::test_{test}")
    for name, file, old, new, test in (
        (
            "the gate and what it gates exchanged",
            "families",
            '"mlp.gate_proj mlp.up_proj"',
            '"mlp.up_proj mlp.gate_proj"',
            "outputs[llama]",
        ),
        (
            "the two norms of a layer exchanged",
            "families",
            '"attention_norm": "attention.output.LayerNorm"',
            '"attention_norm": "output.LayerNorm"',
            "there_and_back[bert]",
        ),
        (
            "weights (in, out) not turned",
            "families",
            r'transposed=r"\.c_\w+\.weight$"',
            r'transposed=r"\.c_attn\.weight$"',
            "outputs[gpt2]",
        ),
        (
            "the other gelu",
            "families",
            '"gelu_new": "gelu_tanh"',
            '"gelu_new": "gelu"',
            "outputs[gpt2]",
        ),
        (
            "a window of one key more",
            "families",
            "None if window is None else window - 1",
            "window",
            "outputs[mistral-3]",
        ),
        (
            "rope_theta not read",
            "families",
            'rope.get("rope_theta", options.get',
            'rope.get("theta", options.get',
            "outputs[llama-theta]",
        ),
        (
            "eps not read",
            "families",
            'options.get("rms_norm_eps", 1e-6)',
            "1e-6",
            "outputs[llama-one-kv-head]",
        ),
        (
            "scaled positions taken for plain ones",
            "families",
            'if kind != "default" or scaling:',
            "if False:",
            "unsupported_options[*linear*]",
        ),
        (
            "unsupported options ignored",
            "families",
            "if self.get(name, value) != value:",
            "if False:",
            "unsupported_options[*scale_attn_weights*]",
        ),
        (
            "surplus keys ignored",
            "pretrained",
            "if key not in expected and key not in copies",
            "if False",
            "every_wrong_key_is_listed",
        ),
        (
            "weights that are tied and differ",
            "pretrained",
            "not torch.equal(theirs[copy], theirs[key])",
            "False",
            "every_wrong_key_is_listed",
        ),
        (
            "what is written shares memory",
            "pretrained",
            "part.clone(memory_format=torch.contiguous_format)",
            "part",
            "there_and_back[gpt2]",
        ),
        (
            "options that transformers lacks not written down",
            "pretrained",
            "if fields[k] not in known",
            "if False",
            "what_transformers_cannot_have[*]",
        ),
    )
)
