# docker build -t dln-momentum . && docker run --rm -v "$PWD/outputs:/dln/outputs" dln-momentum
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# torch's CPU builds: those on PyPI bring several GB of CUDA
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
WORKDIR /dln
COPY . .
RUN make .venv/.installed
CMD ["make", "train"]
