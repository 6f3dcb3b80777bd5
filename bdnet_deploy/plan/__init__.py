"""Lowering, packing and memory: from a graph with numerics to steps that the runtime executes."""

from bdnet_deploy.plan.lower import make_plan
from bdnet_deploy.plan.plan import Epilogue, Plan, PlanStep, PlanTensor

__all__ = ["Epilogue", "Plan", "PlanStep", "PlanTensor", "make_plan"]
