"""Pillow's side of `lfm-serve bench`: one command per line, one answer per line, CPU times of this thread in ns."""

import gc
import hashlib
import io
import sys
import time

try:
    import PIL
    from PIL import Image
except ImportError as error:
    print("absent", error)
    sys.exit()


def opened():
    # Without the reference's .convert("RGB"), which copies an image that is already RGB: in Pillow's favour.
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return image


def resized(image):
    return image.resize((256, 256), Image.Resampling.BILINEAR)


def cropped(image):
    # A picture too small for a region is resized.
    parts = [image.crop(box) for box in boxes]
    return [part if part.size == (256, 256) else resized(image) for part in parts]


def timed(work):
    start = time.thread_time_ns()
    result = work()
    spent = time.thread_time_ns() - start
    # Freed after the clock has stopped.
    del result
    return spent


def answer(command, *operands):
    global jpeg, boxes, decoded
    match command:
        case "load":
            jpeg = sys.stdin.buffer.read(int(operands[0]))
            boxes = [tuple(map(int, box.split(","))) for box in operands[1:]]
            decoded = opened()
            pixels = [resized(decoded), *cropped(decoded)]
            return hashlib.sha256(b"".join(image.tobytes() for image in pixels)).hexdigest()
        case "decode":
            return timed(opened)
        case "resize":
            return timed(lambda: resized(decoded))
        case "prepare":
            return timed(lambda: resized(opened()))
        case "regions":
            return timed(lambda: cropped(opened()))


gc.disable()
print("pillow", PIL.__version__, flush=True)
while line := sys.stdin.buffer.readline():
    print(answer(*line.decode().split()), flush=True)
