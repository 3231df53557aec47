import json

import pytest
from rich.console import Console

from benchmarks.studies.accuracy import adversarial
from benchmarks.studies.accuracy import run as accuracy
from benchmarks.studies.accuracy.adversarial import INPUTS, Job

from ..points import FAKES


def job(provider="fused", variant="full"):
    return Job(provider, variant, "float32", "cpu", 4, 2, 16, 0)


@pytest.mark.parametrize("provider", ["naive", "fused"])
@pytest.mark.parametrize("variant", ["full", "causal", "causal+softcap:20"])
def test_every_kind_of_input_is_tried_with_gradients(provider, variant):
    rows = adversarial.check(job(provider, variant))
    assert [row["inputs"] for row in rows] == list(INPUTS)
    for row in rows:
        assert row["status"] == "ok"
        assert set(row["error_ratio"]) == {"out", "dq", "dk", "dv"}
        assert all(ratio < 20 for ratio in row["error_ratio"].values()), row


def test_adversarial_inputs_are_adversarial():
    for name in ("large", "constant", "outliers"):
        calm = adversarial.make_inputs(
            adversarial.AttentionShape(1, 2, 2, 64, 64, 16), adversarial.torch.float32, "cpu", 0
        )
        bent = adversarial.make_inputs(
            adversarial.AttentionShape(1, 2, 2, 64, 64, 16), adversarial.torch.float32, "cpu", 0
        )
        INPUTS[name].bend(bent)
        assert not calm.k.equal(bent.k)
    assert "key_padding:0:1" in INPUTS["empty rows"].extra
    assert INPUTS["odd length"].seq_len % 2 == 1


def test_nan_is_said_in_words():
    rows = adversarial.check(job(f"{FAKES}:is_not_a_number"))
    assert rows[0]["error_ratio"]["out"] == "not finite"


def test_what_a_provider_cannot_do_is_a_row():
    rows = adversarial.check(job("sdpa", "softcap:3"))
    assert {row["status"] for row in rows} == {"unsupported"}
    assert "softcap" in rows[0]["reason"]


def test_the_run_writes_and_survives_a_crash(tmp_path):
    request = accuracy.AccuracyRequest(
        *("cpu", ("naive", f"{FAKES}:exits"), ("causal",), "float32"), 2, 2, 16, 0
    )
    out = Console(record=True, width=120, quiet=True)
    accuracy.run(request, 60.0, tmp_path, ["accuracy"], out)
    content = json.loads((tmp_path / "accuracy.json").read_text())
    assert content["provenance"]["command"] == "python -m benchmarks accuracy"
    found = {row["provider"]: row["status"] for row in content["rows"]}
    assert found == {"naive": "ok", f"{FAKES}:exits": "error"}
    assert len(content["rows"]) == 2 * len(INPUTS)
