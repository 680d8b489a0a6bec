"""Data: from what people have to batches of tensors, and back to pictures."""

from ganlib.data.codec import decode, encode, pictures
from ganlib.data.dataset import Data
from ganlib.data.load import load
from ganlib.data.prepare import prepare

__all__ = ["Data", "decode", "encode", "load", "pictures", "prepare"]
