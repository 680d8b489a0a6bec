"""Looking into the latent space of a trained model: walks, projections, directions, mixed styles."""
