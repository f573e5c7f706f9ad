"""Random Triton kernels, and Triton's language a second time, on NumPy, to compare with.

`generator` writes kernels as Python source. `runner` compiles and launches them as a user does,
runs their tile IR on the reference interpreter, and runs the very same source as plain Python, with
`numpy_language` in the place of `triton.language`. `shrink` drops what a difference does not need.
"""
