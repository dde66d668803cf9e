"""Kernels are exchanged in place; nothing that is saved or trained notices.

A kernel that cannot run is refused with a reason and an alternative, never replaced in silence.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from lightning_mono.kernels.select import BEST, blocks, passed_over, why_not

from lightning_mono import kernels
from lightning_mono.errors import RecipeError
from lightning_mono.model import ExpertsConfig
from lightning_mono.model.experts import Experts
from lightning_mono.testing import tiny_config, tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HERE = ("masked_dense", "gathered", "grouped")
"""The kernels that run on a CPU, in fp32."""


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton does not interpret, whatever other tests have set."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def _in_use(model: torch.nn.Module) -> set[object]:
    return {m.kernel for m in model.modules() if isinstance(m, Experts)}


@pytest.mark.parametrize("name", HERE)
def test_use_swaps_in_place_and_touches_no_parameter(name: str) -> None:
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    objects = dict(model.named_parameters())
    # 2 layers x (qkv, out, ffn and two norms)
    assert kernels.use(model, name) == 10
    assert _in_use(model) == {kernels.KERNELS[name]}
    assert list(model.state_dict()) == list(before)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter is objects[key] for key, parameter in model.named_parameters())


def test_use_counts_blocks_that_have_visual_weights() -> None:
    model = tiny_model(tiny_config(ExpertsConfig(ffn=(1,), attention=(0,))))
    assert kernels.use(model, "masked_dense") == 3 == len(blocks(model))
    assert kernels.use(tiny_model(tiny_config(ExpertsConfig())), "gathered") == 0


def test_active_puts_every_former_kernel_back() -> None:
    model = tiny_model()
    kernels.use(model, "masked_dense")
    model.layers[0].ffn.kernel = kernels.gathered
    with kernels.active(model, "gathered"):
        assert _in_use(model) == {kernels.gathered}
    assert model.layers[0].ffn.kernel is kernels.gathered
    assert model.layers[1].ffn.kernel is kernels.masked_dense
    with pytest.raises(KeyError, match="inside"), kernels.active(model, "gathered"):
        raise KeyError("inside")
    assert model.layers[1].ffn.kernel is kernels.masked_dense


@pytest.mark.parametrize("first", HERE)
def test_kernels_agree_on_a_whole_model(first: str) -> None:
    dtype, within = (torch.float32, 1e-4) if first == "grouped" else (torch.float64, 1e-10)
    model = tiny_model(dtype=dtype)
    ids = torch.tensor([[5, 3, 3, 3, 3, 7, 9], [8, 9, 10, 3, 3, 3, 3]])
    pixels = torch.randn(2, 3, 16, 16)
    logits = []
    for name in (first, "masked_dense"):
        with kernels.active(model, name), torch.no_grad():
            logits.append(model(ids, pixels).logits)
    torch.testing.assert_close(*logits, atol=within, rtol=within)


def test_unknown_kernels_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"'fast'.*auto, masked_dense, gathered, grouped, triton"):
        kernels.use(tiny_model(), "fast")
    with pytest.raises(ValueError, match="'fast'"):
        why_not("fast", CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("triton", torch.float32, r"a CUDA GPU and this is a cpu device; use gathered"),
        ("grouped", torch.float64, r"float64; use gathered"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(name: str, dtype: torch.dtype, reason: str) -> None:
    model = tiny_model(dtype=dtype)
    kernels.use(model, "masked_dense")
    with pytest.raises(RecipeError, match=f"kernel {name} cannot run: .*{reason}") as refused:
        kernels.use(model, name)
    assert "\n" not in str(refused.value)
    assert _in_use(model) == {kernels.masked_dense}


def test_auto_takes_the_first_of_the_best_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"triton"}

    def reason(name: str, *_: object) -> str | None:
        return "no" if name in refused else None

    monkeypatch.setattr("lightning_mono.kernels.select.why_not", reason)
    model = tiny_model()
    assert kernels.choose("auto", model, CUDA, torch.bfloat16) == "grouped"
    assert passed_over("grouped", model, CUDA, torch.bfloat16) == {"triton": "no"}
    refused.add("grouped")
    assert kernels.choose("auto", model, CUDA, torch.bfloat16) == "gathered"
    refused.clear()
    assert kernels.choose("auto", model, CUDA, torch.bfloat16) == "triton" == BEST["cuda"][0]


def test_auto_on_a_cpu_is_gathered_and_says_why_not_the_others() -> None:
    assert kernels.choose("auto", None, CPU) == "gathered"
    others = passed_over("gathered", tiny_model(), CPU, torch.float32)
    assert "CUDA GPU" in others["triton"]
    assert others["grouped"] == "it gains nothing on cpu"


def test_a_model_is_judged_where_it_will_be_and_not_where_it_is() -> None:
    """Before a run the model is on the CPU still, and the device is another."""
    reason = "CUDA GPU and this is a mps device"
    with pytest.raises(RecipeError, match=reason):
        kernels.use(tiny_model(), "triton", torch.device("mps"), torch.bfloat16)


def test_kernels_are_imported_when_they_are_asked_for() -> None:
    code = (
        "import sys; from lightning_mono import kernels; 'triton' in kernels.KERNELS; "
        "list(kernels.KERNELS); kernels.choose('auto'); assert 'triton' not in sys.modules, 'early'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
