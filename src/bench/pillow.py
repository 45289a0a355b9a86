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


def timed(work):
    start = time.thread_time_ns()
    result = work()
    spent = time.thread_time_ns() - start
    # Freed after the clock has stopped.
    del result
    return spent


def answer(command, *operands):
    global jpeg, decoded
    match command:
        case "load":
            jpeg = sys.stdin.buffer.read(int(operands[0]))
            decoded = opened()
            return hashlib.sha256(resized(decoded).tobytes()).hexdigest()
        case "decode":
            return timed(opened)
        case "resize":
            return timed(lambda: resized(decoded))
        case "prepare":
            return timed(lambda: resized(opened()))


gc.disable()
print("pillow", PIL.__version__, flush=True)
while line := sys.stdin.buffer.readline():
    print(answer(*line.decode().split()), flush=True)
