"""Ray, DeepSpeed and MLflow around the `elf` package: data preparation, training, sampling, tracking and reports."""
