"""The mathematics of diffusion models that no editing method owns."""
