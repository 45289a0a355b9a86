"""FastAPI: as many uvicorn workers as cores (fastapi.tiangolo.com/deployment/server-workers)."""

from contextlib import asynccontextmanager

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from detector import CORES, MOST_IN_FLIGHT, PORT, Detector


@asynccontextmanager
async def lifespan(app: FastAPI):
    # Blocking work belongs on the thread pool, whose size is set like this (starlette.dev/threadpool). One thread: a
    # worker has one core, and 40 concurrent runs would only delay each other.
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    app.state.detector = Detector()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/score")
async def score(request: Request) -> dict:
    body = await request.body()
    return (await run_in_threadpool(request.app.state.detector.score, [body]))[0]


if __name__ == "__main__":
    # 503 beyond the limit, which applies per worker (uvicorn.dev/settings, "Resource Limits").
    limit = MOST_IN_FLIGHT // CORES
    uvicorn.run(
        "fastapi_app:app", port=PORT, workers=CORES, limit_concurrency=limit, access_log=False, log_level="warning"
    )
