"""Full-catalogue ranking, metrics, slices and paired statistics."""
