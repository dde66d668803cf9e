"""Two processes with half the batch each train as one process does with all of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mono_ddp", "mono_fsdp2"])
def test_two_processes_equal_one_through_stage_boundaries(recipe_file: Path, strategy: str) -> None:
    out = recipe_file.parent
    text = recipe_file.read_text()
    environment = dict(os.environ, PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")
    for name, devices in (("one", 1), ("two", 2)):
        copy = recipe_file.with_name(f"{name}.yaml")
        copy.write_text(text.replace(f"{out}/run", f"{out}/{name}"))
        command = [sys.executable, "-m", "lightning_mono", "fit", str(copy)]
        command += [f"trainer.devices={devices}", f"out={out}/{name}"]
        command += [f"trainer.strategy={strategy}"] if devices > 1 else []
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300, cwd=out)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    one = load_file(out / "one" / "model" / "model.safetensors")
    two = load_file(out / "two" / "model" / "model.safetensors")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=0)
