"""Measurements: `python -m bench.forwarding` (beside the kernel, real traffic), `python -m bench.engine` (the engine alone).

Laws
- What is compared runs in turns, in the same minute, on the same machine; medians of at least five rounds, with the spread.
- A figure is written with what it was measured on; no figure is kept in the repository.
"""
