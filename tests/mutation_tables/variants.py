"""Variants that users define: tables, and what `define_variant` and `check_variant` notice."""

from .mutation import OPS, Mutation, torch

TABLES = f"{OPS}attention/tables.py"
BACKWARD = "kernels/attention_backward.py"
STRIPS = "ops/attention/test_tables.py::test_many_strips_and_tiles[*-interpreted]"

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
        "ops/attention/test_tables.py::test_many_strips_and_tiles[gate*-torch]",
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
