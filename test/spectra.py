"""How the detail of a picture is spread over sizes; photographs of landscapes are all alike in it.

The tests hold procedural coasts to it, and ``benchmarks/coast.py`` compares them with photographs.
"""

import numpy as np


def spectral_slope(grey: np.ndarray) -> float:
    """Exponent that the power of a picture [H, W] falls with along frequency."""
    height, width = grey.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    edges = np.geomspace(0.03, 0.5, 12)
    bands = [power[(frequency >= low) & (frequency < high)].mean()
             for low, high in zip(edges, edges[1:], strict=False)]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(bands), 1)[0])
