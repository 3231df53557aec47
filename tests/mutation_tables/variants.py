"""Variants that users define: tables, and what `define_variant` and `check_variant` notice."""

from .mutation import OPS, Mutation, torch

TABLES = f"{OPS}attention/tables.py"
BACKWARD = "kernels/attention_backward.py"
STRIPS = "ops/attention/test_tables.py::test_many_strips_and_tiles[interpreted-*]"

GRADIENTS_OF_TABLES = (
    torch(
        "threads add to a table at once",
        TABLES,
        'if dtable.device.type == "cpu":',
        "if False:",
        "ops/attention/test_tables.py::test_the_same_bits_every_time[torch]",
    ),
    torch(
        "contributions along broadcast dimensions of an index dropped",
        TABLES,
        "contributions.sum_to_size(index.shape)",
        "contributions[tuple(slice(0, n) for n in index.shape)]",
        "ops/attention/test_tables.py::test_contributions_of_any_shape[*]",
    ),
    torch(
        "a table cut to the tile",
        "fused_attention/variants/base.py",
        "tables = 0 if self.type.torch_arg_index is None else 1",
        "tables = 0",
        "ops/attention/test_tables.py::test_many_strips_and_tiles[torch-gate*]",
    ),
    Mutation(
        "every strip of a table from the first row on",
        BACKWARD,
        "start_m = first_m + tile_m * BLOCK_M",
        "start_m = tile_m * BLOCK_M",
        STRIPS,
    ),
    Mutation(
        "strips of a table stored beside their place",
        BACKWARD,
        "at_m = (offs_m - first_m).to(tl.int64) * stride_dm",
        "at_m = offs_m.to(tl.int64) * stride_dm",
        STRIPS,
    ),
    Mutation(
        "only the last strip of a table added",
        f"{OPS}attention/triton_backend.py",
        "tables.add_at(dtable, index, dbias(index.shape, rows))",
        "tables.add_at(dtable.zero_(), index, dbias(index.shape, rows))",
        STRIPS,
    ),
)

DEFINITIONS = tuple(
    torch(
        name,
        "fused_attention/variants/hooks.py",
        old,
        new,
        f"variants/test_definition.py::test_{test}",
    )
    for name, old, new, test in (
        (
            "a hook that is not jitted let through",
            "if AVAILABLE and not is_jit(function):",
            "if False:",
            "hooks_of_the_wrong_kind[*]",
        ),
        (
            "the parameters of a hook not counted",
            "    except TypeError:\n        _refuse(",
            "    except ValueError:\n        _refuse(",
            "hooks_of_the_wrong_kind[*]",
        ),
        (
            "hooks beside a sink_logit let through",
            'given.keys() - {"sink_logit", "check"}',
            "set()",
            "hooks_that_do_not_go_together[*]",
        ),
    )
)

CHECKS = tuple(
    (Mutation if test.startswith("mistakes_in_kernels") else torch)(
        name,
        f"fused_attention/checking/{file}.py",
        old,
        new,
        f"variants/test_check_variant.py::test_{test}",
    )
    for name, file, old, new, test in (
        (
            "twins called on the whole only",
            "twins",
            "((0, middle), (middle, n))",
            "((0, n),)",
            "mistakes_in_torch_are_found[mask_tile]",
        ),
        (
            "a key that one query sees may be missed",
            "bounds",
            "missed = some & (",
            "missed = every & (",
            "mistakes_in_torch_are_found[torch_keys_of_the_last]",
        ),
        (
            "a key that one query sees counts as seen by all",
            "bounds",
            "wrong = ~every & (",
            "wrong = ~some & (",
            "mistakes_in_torch_are_found[torch_all_keys_of_the_last]",
        ),
        (
            "what is added compared with itself",
            "gradients",
            "found = difference(added[1], added[0], allowed)",
            "found = difference(added[0], added[0], allowed)",
            "mistakes_in_torch_are_found[additive]",
        ),
        (
            "the dtype of an index not looked at",
            "twins",
            "problem = _shape_problem(call, found, torch.int64)",
            "problem = _shape_problem(call, found, found.dtype)",
            "mistakes_in_torch_are_found[index_dtype]",
        ),
        (
            "attention in PyTorch not judged",
            "attention",
            "if not error <= allowed:",
            "if False:",
            "mistakes_in_torch_are_found[score_without_grad]",
        ),
        (
            "hooks called in one layout only",
            "on_triton",
            "for layout in probe.LAYOUTS:",
            "for layout in probe.LAYOUTS[:1]:",
            "mistakes_in_kernels_are_found[mask_of_rows-interpreted]",
        ),
        (
            "a band wider than the mistake of a hook",
            "compare",
            "return exact, 2 * error + EPS * size + change",
            "return exact, 2 * error + 0.01 * size + change",
            "mistakes_in_kernels_are_found[score-interpreted]",
        ),
        (
            "query bounds not looked at",
            "on_triton",
            '"query_bounds": self._query_bounds,',
            '"query_bounds": self._key_bounds,',
            "mistakes_in_kernels_are_found[queries_too_narrow-interpreted]",
        ),
        (
            "findings of the other process dropped",
            "process",
            "            findings.merge(found)\n",
            "",
            "another_process_interprets_the_kernels",
        ),
    )
)
