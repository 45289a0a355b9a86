"""mosec with OpenVINO in place of ONNX Runtime, on the same graph.

One stream of one thread in each worker, static shapes, float32 (docs.openvino.ai, "Optimizing for Latency", "Dynamic Shapes",
"Precision Control": a CPU with bfloat16 would use that, and here an error of one grey level matters). Threads are not
pinned ("Multi-threading optimizations"): both workers would use the first core.
"""

import pathlib

import openvino

import mosec_app
from detector import Detector


class OpenVino(Detector):
    @staticmethod
    def load(graph: pathlib.Path):
        core = openvino.Core()
        model = core.read_model(graph)
        model.reshape([1, 256, 256, 3])
        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda pixels: request.infer([pixels])["logit"]


class Score(mosec_app.Score):
    detector_class = OpenVino


if __name__ == "__main__":
    mosec_app.serve(Score)
