"""Quantize the language model that ships with Asterope, and see what it still knows."""

from __future__ import annotations

import asterope

TEXT = """
def read_lines(path, encoding="utf-8"):
    with open(path, encoding=encoding) as file:
        return [line.rstrip("\\n") for line in file]
"""


def main() -> None:
    model = asterope.load(asterope.shipped_model())
    print(f"{model.name}: perplexity {model.perplexity(TEXT):.2f}")
    for fmt in ("mxfp4", "mxfp4/fp8"):
        print(f"{fmt:<9}: perplexity {model.quantize(fmt).perplexity(TEXT):.2f}")
    prompt = "    def __init__(self,"
    print(prompt + model.quantize("mxfp4").generate(prompt, max_new_tokens=24))


if __name__ == "__main__":
    main()
