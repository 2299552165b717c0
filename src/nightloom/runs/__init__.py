"""How a run is kept: stages and their folders, MLflow tracking, the environment."""
