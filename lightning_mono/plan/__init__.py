"""What a recipe will cost, before it runs."""

from lightning_mono.plan.gpus import GPUS, Gpu, find_gpus
from lightning_mono.plan.planner import Plan, plan
from lightning_mono.plan.record import plain
from lightning_mono.plan.text import table

__all__ = ["GPUS", "Gpu", "Plan", "find_gpus", "plain", "plan", "table"]
