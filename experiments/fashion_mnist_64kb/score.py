"""Test accuracy of the files beside this one, by onnxruntime and numpy alone: python score.py [folder of IDX files]"""

import gzip
import sys
from pathlib import Path

import numpy
import onnxruntime

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
images, labels = (
    gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
)
x = numpy.frombuffer(images, numpy.uint8, offset=16).reshape(-1, 1, 28, 28).astype(numpy.float32) / 255
y = numpy.frombuffer(labels, numpy.uint8, offset=8)
for file in sorted(Path(__file__).parent.glob("model_*.onnx")):
    session = onnxruntime.InferenceSession(str(file))
    scores = session.run(None, {session.get_inputs()[0].name: x})[0]
    print(f"{file.name}: {file.stat().st_size:,} bytes, {(scores.argmax(1) == y).mean():.2%} of {len(y):,} right")
