"""The click head: p = f(W u + X_i + context), its baselines, and how all of them are fitted, chosen and calibrated."""
