"""The mutations that `tests.mutations` applies, one file per family."""

from . import (
    attention,
    benchmarks,
    cache,
    generation,
    hugging_face,
    losses,
    models,
    modules,
    norms,
    paged,
    pointwise,
    tensors,
    training,
    variants,
)
from .mutation import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *attention.KERNELS,
    *attention.BOUNDS,
    *attention.PATHS,
    *variants.GRADIENTS_OF_TABLES,
    *variants.DEFINITIONS,
    *variants.CHECKS,
    *norms.NORMS,
    *losses.LOSSES,
    *pointwise.POINTWISE,
    *pointwise.ROTARY,
    *paged.PAGED,
    *cache.CACHE,
    *tensors.TENSORS,
    *modules.MODULES,
    *generation.GENERATION,
    *models.MODELS,
    *models.OBJECTIVES,
    *hugging_face.PRETRAINED,
    *benchmarks.BENCHMARKS,
    *training.TRAINING,
    *training.VISUALIZE,
)
