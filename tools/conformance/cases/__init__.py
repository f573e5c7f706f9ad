"""Tests of ours on kernels of others."""
