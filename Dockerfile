# lfm-serve in a container, for CPUs and for NVIDIA GPUs:
#   docker build --target cpu  -t lfm-serve:0.1.0 .
#   docker build --target cuda -t lfm-serve:0.1.0-cuda .
# Base images are named by version; `make pin-images` adds the digests that their registries give for these names.
# What is in the runtime images, and what of this file has been run: docs/deploy.md.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG TENSORRT_IMAGE=nvcr.io/nvidia/tensorrt:25.08-py3

FROM ${RUST_IMAGE} AS tools
# Debian keeps one version of a package: a pinned one is gone after the next point release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake nasm python3 python3-pip \
 && rm -rf /var/lib/apt/lists/* \
 && cargo install --locked cargo-chef@0.1.78
WORKDIR /src

FROM tools AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM tools AS build
# The dependencies alone: this layer lasts until Cargo.lock changes.
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --release --locked --recipe-path recipe.json
# ONNX Runtime, checked against the hash in its lock file.
COPY Makefile Makefile
COPY deploy/onnxruntime.lock deploy/onnxruntime.lock
RUN make vendor
COPY . .
# The commit, for `--version` and lfm_build_info: --build-arg REVISION=$(git rev-parse --short=12 HEAD)
ARG REVISION=unknown
# The folder that `make dist` packs: program, library, model, licences, bill of materials.
RUN LFM_REVISION=${REVISION} cargo build --release --locked \
 && SOURCE_DATE_EPOCH=0 deploy/dist.sh target/release/lfm-serve /dist \
 && rm /dist/*.tar.gz \
 && mv /dist/lfm-serve-* /opt/lfm-serve

FROM build AS gpu-library
COPY deploy/onnxruntime-gpu.lock deploy/onnxruntime-gpu.lock
RUN make vendor-gpu

# CUDA, cuDNN and TensorRT come without their compilers, headers and tools.
FROM ${TENSORRT_IMAGE} AS nvidia
RUN mkdir /opt/nvidia \
 && find /usr/lib/x86_64-linux-gnu /usr/local/cuda/lib64/ \( -name 'libcudart.so*' -o -name 'libcublas*.so*' \
    -o -name 'libcufft.so*' -o -name 'libcurand.so*' -o -name 'libnvrtc*.so*' -o -name 'libcudnn*.so*' \
    -o -name 'libnvinfer*.so*' -o -name 'libnvonnxparser.so*' \) -exec cp --no-dereference -t /opt/nvidia {} +

# What both images share. No shell, no package manager, no compiler; nothing is written to the root file system.
FROM ${RUNTIME_IMAGE} AS runtime
LABEL org.opencontainers.image.title="lfm-serve" \
      org.opencontainers.image.description="Is this picture real or generated?"
COPY --from=build /opt/lfm-serve/share /opt/lfm-serve/share
COPY --from=build /opt/lfm-serve/LICENSES /opt/lfm-serve/LICENSES
COPY --from=build /opt/lfm-serve/sbom.cdx.json /opt/lfm-serve/sbom.cdx.json
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# All of the container's addresses; 8080 is open to who may reach the container.
ENV LFM_LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=120s CMD ["/opt/lfm-serve/bin/lfm-serve", "healthcheck"]
ENTRYPOINT ["/opt/lfm-serve/bin/lfm-serve"]
CMD ["serve"]

FROM runtime AS cuda
COPY --from=nvidia /opt/nvidia /opt/nvidia
COPY --from=gpu-library /src/vendor/onnxruntime-gpu/*.so /opt/lfm-serve/lib/
COPY --from=build /opt/lfm-serve/bin /opt/lfm-serve/bin
# The NVIDIA container toolkit mounts the driver's libraries for these.
ENV LD_LIBRARY_PATH=/opt/nvidia \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime AS cpu
COPY --from=build /opt/lfm-serve/lib /opt/lfm-serve/lib
COPY --from=build /opt/lfm-serve/bin /opt/lfm-serve/bin
