"""The training example, and the attention maps of `visualize`."""

from .mutation import table, torch

TRAINING = table(
    "examples/training/{}.py",
    "examples/test_train_gpt.py::test_{}",
    (
        (
            "resumed without the optimizer",
            "training",
            'self.optimizer.load_state_dict(found["optimizer"])',
            "pass",
            "resuming_is_equal_to_the_bit[3]",
        ),
        (
            "dropout not seeded at each step",
            "training",
            "torch.manual_seed(random_numbers.getrandbits(63))",
            "pass",
            "resuming_is_equal_to_the_bit[3]",
        ),
        (
            "checkpoint written in place",
            "checkpoint",
            'path.with_name(f".{path.name}.partial")',
            "path",
            "killed_at_random_moments*",
        ),
        (
            "gradients not averaged over processes",
            "processes",
            "if self.count == 1:\n            return module",
            "return module",
            "two_processes_learn_what_one_learns",
        ),
        (
            "every process takes the same share",
            "training",
            "[group.rank :: group.count]",
            "[0 :: group.count]",
            "two_processes_learn_what_one_learns",
        ),
        (
            "loss of the last part of a batch only",
            "training",
            "total += loss.detach()",
            "total = loss.detach()",
            "parts_of_a_batch_add_up",
        ),
        (
            "checkpoint of another configuration loaded",
            "checkpoint",
            "    if differences:",
            "    if not found:",
            "a_checkpoint_of_another_configuration*",
        ),
    ),
)
VISUALIZE = tuple(
    torch(name, "fused_attention/visualize.py", old, new, f"models/test_visualize.py::test_{test}")
    for name, old, new, test in (
        (
            "attention maps with dropout",
            "with evaluating(model), contextlib",
            "with contextlib",
            "the_model_is_left_as_it_was",
        ),
        (
            "attention maps without the variants",
            "reference.attention(q, k, v, variants, ",
            "reference.attention(q, k, v, ",
            "weights_give_the_output*[gpt]",
        ),
        (
            "hooks left behind",
            "undo.callback(module.register_forward_pre_hook(hook).remove)",
            "module.register_forward_pre_hook(hook)",
            "the_model_is_left_as_it_was",
        ),
        (
            "heads sorted, not in the order selected",
            "weights[0, head]",
            "weights[0, sorted(columns)[list(columns).index(head)]]",
            "selected_layers_and_heads",
        ),
    )
)
