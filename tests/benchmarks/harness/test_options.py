import pytest

from benchmarks.harness import options
from benchmarks.harness.options import BadOption
from benchmarks.studies.attention import options as attention


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("256..2048", (256, 512, 1024, 2048)),
        ("512,256", (256, 512)),
        ("100..250", (100, 200)),
        ("64,256..512, 64", (64, 256, 512)),
        ("197", (197,)),
    ],
)
def test_lengths(text, lengths):
    assert options.seq_lens(text) == lengths


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "8..4", "a", "1e3", "256..", "..256", "1,,2", "1.5", "²", "99999999999"]
)
def test_bad_lengths_name_the_option(text):
    with pytest.raises(BadOption, match=r"^--seq-lens: expected "):
        options.seq_lens(text)


def test_heads_come_from_the_command_line_then_the_model():
    llama = attention.model("llama3-8b")
    assert attention.heads(None, None, None) == (8, 8)
    assert attention.heads(llama, None, None) == (32, 8)
    assert attention.heads(llama, None, 4) == (32, 4)
    assert attention.heads(llama, 16, None) == (16, 16)
    assert attention.head_dim(llama, None) == 128
    assert attention.head_dim(llama, 64) == 64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attention.heads(None, 6, 4), "--kv-heads: expected a divisor of --heads 6, got 4"),
        (lambda: attention.heads(None, 0, None), "--heads: expected at least 1, got 0"),
        (lambda: attention.head_dim(None, -3), "--head-dim: expected at least 1, got -3"),
        (lambda: options.seed(2**63), "--seed: expected 0 <= seed"),
        (lambda: options.at_least("--timeout", float("nan"), 1), "--timeout: expected at least 1"),
        (lambda: options.at_least("--timeout", float("inf"), 1), "--timeout: expected at least 1"),
        (lambda: options.dtype("int8"), "--dtype: expected one of float16"),
        (lambda: attention.modes("forward,sideways"), "--mode: expected one of forward"),
        (lambda: attention.model("gpt9"), "--model: expected one of gpt2"),
        (lambda: attention.provider_names("fusd"), "--providers: unknown provider 'fusd'; known: "),
        (lambda: attention.provider_names("a.b:c"), "--providers: cannot load provider 'a.b:c'"),
        (
            lambda: attention.provider_names("sdpa:fast"),
            "--providers: unknown provider 'sdpa:fast'",
        ),
        (lambda: attention.variant_specs("causal,x"), "--variants: unknown variant 'x'"),
        (lambda: attention.variant_specs(","), "--variants: expected a comma-separated list"),
        (lambda: options.device("tpu"), "--device: expected one of auto, cpu, cuda, got 'tpu'"),
    ],
)
def test_nonsense_is_refused_by_name(call, message):
    with pytest.raises(BadOption) as raised:
        call()
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_short_names_of_dtypes():
    assert [options.dtype(t) for t in ("fp16", "bf16", "fp32")] == [
        "float16",
        "bfloat16",
        "float32",
    ]


def test_an_unwritable_folder_is_refused(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("kept")
    for path in (blocker, blocker / "below"):
        with pytest.raises(BadOption, match=r"^--out: cannot write to "):
            options.out_dir(path)
    assert blocker.read_text() == "kept"
    assert options.out_dir(tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_exists_but_takes_no_files_is_refused(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(options.tempfile, "TemporaryFile", refuse)
    with pytest.raises(BadOption, match=r"^--out: cannot write to .*: Permission denied$"):
        options.out_dir(tmp_path)
