"""Networks: one transformer trunk with an input stem and output heads per kind of process."""
