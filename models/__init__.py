"""Learned models and the contracts everything else stands on.

PyTorch, numpy and pyarrow only: nothing here imports Beam, Flink, Feast, Redis or HTTP.
"""
