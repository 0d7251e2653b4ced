"""Samples of an artefact at scale: sources, compute batches, atomic parts, and the folder that holds them."""
