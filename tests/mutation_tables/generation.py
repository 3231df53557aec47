"""Generation: decoding, sampling, speculative decoding."""

from .mutation import table

GENERATION = table(
    "fused_attention/generation/{}.py",
    "generation/test_{}",
    (
        (
            "rejected drafts kept in the cache",
            "decoder",
            "length = min(seq.length, len(sequence.tokens) - 1)",
            "length = seq.length",
            "greedy.py::test_greedy_is_recomputation[0]",
        ),
        (
            "keys that left the window not computed again",
            "decoder",
            "0 if seq.dropped and length < gone else length",
            "length",
            "speculative.py::test_a_wrong_draft_starts_over_behind_its_window[*]",
        ),
        (
            "ended sequences keep their pages",
            "generate",
            "decoder.trim(sequences, active)",
            "decoder.trim(active, active)",
            "cache.py::test_tokens_are_streamed_and_stop_tokens_end_a_sequence",
        ),
        (
            "every draft accepted",
            "sampling",
            "if random.random() >= float(p_row[token] / q_row[token]):",
            "if False:",
            "speculative.py::test_verify_keeps_the_distribution_of_the_target[1]",
        ),
        (
            "rejected draft replaced by a sample of p",
            "sampling",
            "torch.where(rest.sum() > 0, rest, p_row)",
            "p_row",
            "speculative.py::test_verify_keeps_the_distribution_of_the_target[2]",
        ),
        (
            "acceptance without the draft's probability",
            "sampling",
            "float(p_row[token] / q_row[token])",
            "float(p_row[token])",
            "sampling.py::test_samples_have_the_distribution_of_the_model[plain-True]",
        ),
        (
            "one token too few in top_p",
            "sampling",
            "before = p.cumsum(-1) - p",
            "before = p.cumsum(-1)",
            "sampling.py::test_distribution",
        ),
        (
            "random number equal to a cumulative sum",
            "sampling",
            "<= u[:, None]",
            "< u[:, None]",
            "sampling.py::test_sample_draws_nothing_impossible",
        ),
        (
            "the same random numbers for all sequences of a prompt",
            "generate",
            'Random(f"{seed} {i} {copy}")',
            'Random(f"{seed} {i}")',
            "sampling.py::test_seeds[False]",
        ),
        (
            "dropout while generating",
            "generate",
            "stack.enter_context(evaluating(decoder.model))",
            "pass",
            "greedy.py::test_dropout_is_off_meanwhile",
        ),
        (
            "prompt computed for every sequence",
            "decoder",
            "self.cached[sequence] = self.cache.fork(self.cached[first])",
            "self.cached[sequence] = self.cache.new(); self.predict_last([sequence], [[]])",
            "cache.py::test_a_prompt_is_stored_once",
        ),
        (
            "one page too few",
            "request",
            "self.copies * (pages - shared) + 1",
            "self.copies * (pages - shared)",
            "greedy.py::test_greedy_is_recomputation[*]",
        ),
        (
            "a long prompt blamed on the new tokens",
            "request",
            "if prompt >= limit:",
            "if prompt > limit:",
            "errors.py::test_errors[*]",
        ),
    ),
)
