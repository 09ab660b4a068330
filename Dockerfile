# The project with its exact versions; give a GPU with `docker run --gpus all --ipc host`.
#   docker build -t gnnrl .
#   docker run --rm -v "$PWD:/work" gnnrl dvc repro
# PyTorch's wheels bring CUDA's libraries; the machine needs NVIDIA's driver and container toolkit.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/gnnrl
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gnnrl gnnrl
COPY stages stages
RUN pip install --no-cache-dir --constraint constraints.txt ".[onnx,distributed,detection,watch,ray]"

# the checkout: `python -m` runs its stages, not the installed ones
WORKDIR /work
RUN git config --system --add safe.directory /work
ENV DVC_NO_ANALYTICS=1
CMD ["python", "-m", "stages", "--help"]
