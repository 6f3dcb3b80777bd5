"""Small rewrites of the graph, one a file: pattern, check (with the reason where it does not apply), rewrite."""

from bdnet_deploy.passes.collapse_repeats import collapse_repeats
from bdnet_deploy.passes.fold_thresholds import fold_thresholds
from bdnet_deploy.passes.merge_affine import merge_affine
from bdnet_deploy.passes.prune_channels import prune_channels
from bdnet_deploy.passes.quantize import QuantizeReport, quantize
from bdnet_deploy.passes.ranges import Batches, Ranges, batch_size, calibrate, random_inputs
from bdnet_deploy.passes.recompute import recompute
from bdnet_deploy.passes.split_concat import split_concat
from bdnet_deploy.passes.to_float import to_float
from bdnet_deploy.passes.to_real import to_real

__all__ = [
    "Batches",
    "QuantizeReport",
    "Ranges",
    "batch_size",
    "calibrate",
    "collapse_repeats",
    "fold_thresholds",
    "merge_affine",
    "prune_channels",
    "quantize",
    "random_inputs",
    "recompute",
    "split_concat",
    "to_float",
    "to_real",
]
