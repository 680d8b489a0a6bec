"""What each figure of an evaluation says, in a sentence for people who do not know its name."""

EXPLAINED = {
    "precision": "Share of samples within the reach of a real item.",
    "density": "In the reach of how many real items a sample lies, over 5.",
    "frechet": "Fréchet distance of the features; grows with poor and with missing samples.",
    "frechet_infinity": "The same, extrapolated to endless items.",
    "kernel": "Kernel distance of the features; about 0 for real data.",
    "coverage": "Share of real items with a sample in their reach.",
    "recall": "Share of real items within the reach of a sample.",
    "missed": "Share of real data in regions that are drawn less than half as often.",
    "different_regions": "Share of regions that hold another share of samples than of real items (NDB/K).",
    "duplicates": "Share of samples that have a twin among the samples.",
    "support": "From how many different items it seems to draw (birthday estimate).",
    "vendi": "As how many wholly different items the samples count.",
    "copy_rate": "Share of samples as close to a training item as a copy, less what chance does.",
    "authenticity": "Share of samples farther from a training item than the next training item is.",
    "c_t": "Far below 0: closer to the training items than held-out items are. Far above: underfitted.",
    "members_found": "Share of training items found while accusing 1 % of the others; guessing finds 1 %.",
    "gan_leaks": "Attack by the distance to the nearest sample.",
    "gan_leaks_calibrated": "The same, less the distance to the nearest other real item.",
    "domias": "Attack by the density of samples over that of real items.",
    "logan": "Attack by the discriminator's own verdict.",
    "detector": "How well a detector tells samples from real items: ½ is guessing, 1 is sure.",
    "detector_compressed": "The same after JPEG compression of both.",
    "detector_halved": "The same after both were halved and enlarged.",
}
"""By name; of a name that ends in _auc or _found the part before counts."""
