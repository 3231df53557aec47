"""What the studies of attention share: scaling, accuracy and targets.

Providers, variant specs, inputs, FLOPs, errors against fp64, and the worker that measures a point.
"""
