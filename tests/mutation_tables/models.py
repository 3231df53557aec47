"""The transformer."""

from .mutation import table, torch

MODELS = table(
    "fused_attention/models/{}.py",
    "models/test_{}",
    (
        (
            "sdpa forgets the variants",
            "backends",
            "attn_mask=mask, **options",
            "**options",
            "backends.py::test_agreement[gpt-alibi-pre-sdpa]",
        ),
        (
            "backend switch does nothing",
            "model",
            "module.backend = backend",
            "pass",
            "backends.py::test_switching",
        ),
        (
            "residual not passed on",
            "block",
            "return layer(x, **options), residual",
            "return layer(x, **options), x",
            "literature.py::test_residual_sums[True]",
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
            "relative distances one off",
            "transformer_xl",
            "return F.pad(x, (1, 0)).reshape(*x.shape[:2], keys + 1, rows)[:, :, 1:]",
            "return F.pad(x, (0, 1)).reshape(*x.shape[:2], keys + 1, rows)[:, :, :-1]",
            "masking.py::test_relative_scores_against_the_formula",
        ),
        (
            "memory not detached",
            "transformer_xl",
            "self.length) :].detach())",
            "self.length) :])",
            "masking.py::test_segments_see_what_one_long_segment_sees[True]",
        ),
        (
            "memory not normalized",
            "transformer_xl",
            "past = norm(past)[0]",
            "pass",
            "masking.py::test_segments_see_what_one_long_segment_sees[True]",
        ),
        (
            "memory normalized twice",
            "transformer_xl",
            "total if self.prenorm else x)",
            "norm(x, residual)[0] if self.prenorm else x)",
            "masking.py::test_segments_see_what_one_long_segment_sees[True]",
        ),
        (
            "causal stack sees the future",
            "stack",
            "(causal(),) if self.causal else ()",
            "()",
            "masking.py::test_later_tokens_do_not_leak[rotary-fused]",
        ),
        (
            "padded sources seen",
            "stack",
            '"variants": _padding(context_lengths)',
            '"variants": ()',
            "masking.py::test_padded_sources_do_not_leak[fused]",
        ),
        (
            "positions not restarted in packed sequences",
            "stack",
            "position_ids = step.positions",
            "position_ids = torch.arange(x.shape[-2], device=x.device)",
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
            "dropout of layers applied to embeddings",
            "stack",
            "nn.Dropout(config.dropout if dropout is None else dropout)",
            "nn.Dropout(config.dropout)",
            "literature.py::test_places_of_dropout[*]",
        ),
        (
            "residual projections as large as the others",
            "initialize",
            "std = 0.02 / math.sqrt(2 * model.config.num_layers)",
            "std = 0.02",
            "training.py::test_initialization",
        ),
    ),
)
OBJECTIVES = tuple(
    torch(name, "fused_attention/objectives.py", old, new, f"models/test_training.py::test_{test}")
    for name, old, new, test in (
        (
            "every corrupted token replaced by mask_id",
            "fate < 0.8, self.mask_id",
            "fate < 1.0, self.mask_id",
            "masked_tokens",
        ),
        (
            "sentinels that count up",
            "torch.tensor([self.sentinel - i])",
            "torch.tensor([self.sentinel + i])",
            "corrupted_spans",
        ),
    )
)
