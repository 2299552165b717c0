"""The click head: p = f(W u + X_i + context), its floors, and how all of them are fitted, chosen and calibrated."""
