"""Round a tensor to block formats, and see what each keeps of it."""

from __future__ import annotations

import numpy as np

from asterope.formats import BLOCKS, dequantize, quantize


def main() -> None:
    values = np.random.default_rng(0).standard_normal((256, 1024)).astype(np.float32)
    print("format       bits/value  signal to noise")
    for name in ("mxfp8", "mxfp6", "nvfp4", "mxfp4", "mxfp4_e1m2"):
        quantized = quantize(values, name, packed=True)
        noise = dequantize(quantized) - values
        snr_db = 10 * np.log10(np.mean(values**2) / np.mean(noise**2))
        bits = 8 * (quantized.codes.nbytes + quantized.scales.nbytes) / values.size
        print(f"{name:<12} {bits:>10.2f}  {snr_db:>12.1f} dB   rule {quantized.rule}")
    element = BLOCKS["mxfp4"].element
    numbers = ", ".join(f"{element.value(code):g}" for code in range(8))
    print(f"the magnitudes of {element.name}: {numbers}")


if __name__ == "__main__":
    main()
