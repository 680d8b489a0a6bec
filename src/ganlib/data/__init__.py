"""Data: from what people have to batches of tensors, and back to pictures."""

from ganlib.data.attributes import load_attributes
from ganlib.data.codec import decode, encode, pictures
from ganlib.data.dataset import Data
from ganlib.data.domains import load_domains
from ganlib.data.load import load
from ganlib.data.pairs import load_pairs
from ganlib.data.prepare import prepare

__all__ = ["Data", "decode", "encode", "load", "load_attributes", "load_domains", "load_pairs", "pictures", "prepare"]
