"""Kernels are interpreted here: Triton has to know before the first one is defined.

Elsewhere in the same process it has to forget again, or other tests would meet a CPU that "runs"
Triton; so the switch is on while the kernels are imported and during this folder's tests.
"""

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TRITON_INTERPRET", "1")
    import lightning_mono.kernels.fused.kernel  # noqa: F401


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
