"""Time and price a decode step of a model that you have no weights of."""

from __future__ import annotations

import asterope


def main() -> None:
    model = asterope.from_config("qwen3-8b").quantize("mxfp4", activations="fp8")
    for batch in (1, 16):
        run = model.simulate("maia200", batch=batch, context=2048)
        speed = f"{1e3 * run.time_s:.2f} ms a step, {run.tokens_per_s:,.0f} tokens/s"
        print(f"batch {batch:>2}: {speed}, {run.usd_per_mtok:.3f} $/Mtok, bound by {run.bound_by}")


if __name__ == "__main__":
    main()
