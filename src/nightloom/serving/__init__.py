"""The day: the real-time service on the champion. Imports no torch, no pandas, no Prefect and no Great Expectations."""
