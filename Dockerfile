# nuclix in an image.   CPU:  docker build -t nuclix .
#                       CUDA: docker build -t nuclix:cuda --build-arg TORCH=cuda .
# Run:   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" nuclix run slides --out results
# A GPU: docker run --gpus all ... nuclix:cuda run slides --out results
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# cpu: PyTorch's build without CUDA, 200 MB; cuda: the one that package indexes have by default.
ARG TORCH=cpu
# Where PyTorch's CPU builds are, as its web page says; only needed where TORCH=cpu.
ARG TORCH_CPU_INDEX=""
# Optional dependencies, such as "openslide,dask".
ARG EXTRAS=openslide
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/nuclix
ENV PATH=/opt/nuclix/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
RUN if [ "$TORCH" = cpu ] && [ -n "$TORCH_CPU_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_CPU_INDEX" "$(grep '^torch==' constraints.txt)"; \
    fi
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY ext ext
COPY engine engine
COPY plugins plugins
COPY testing testing
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/nuclix /opt/nuclix
ENV PATH=/opt/nuclix/bin:$PATH \
    NUMBA_CACHE_DIR=/tmp/numba
RUN useradd --create-home --uid 1000 nuclix
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["nuclix"]
CMD ["--help"]
