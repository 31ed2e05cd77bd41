"""Real QEMUs and kernels, side by side, under emulation."""
