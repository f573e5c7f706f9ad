"""What `tools/triton_conformance.py` is made of: suites, shims, runs, reasons, the page."""
