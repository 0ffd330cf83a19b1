# The app on Debian, for the CPU; for CUDA: --build-arg REQUIREMENTS=cuda (needs the CUDA compiler: give a --build-arg BASE
# that has it, such as a CUDA development image with Python 3.11).
#   docker build -t proxyprompt .
#   docker run -p 127.0.0.1:8000:8000 -v /path/to/studies:/studies proxyprompt
# Weights are in the image; nothing is fetched when it starts.
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE}

ARG REQUIREMENTS=cpu
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_WAIT_POLICY=PASSIVE HOME=/home/app

# The libraries that OpenCV and ITK load.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl g++ libgl1 libglib2.0-0 libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt requirements.in requirements-cuda.txt pyproject.toml ./
# torch first: sam2 is built from source and must find it instead of fetching another for the build.
RUN grep -E '^(torch|torchvision|setuptools)==' requirements.txt > first.txt \
    && pip install --no-cache-dir --requirement first.txt \
    && SAM2_BUILD_CUDA=0 pip install --no-cache-dir --no-build-isolation -r requirements.txt \
    && if [ "$REQUIREMENTS" = cuda ]; then \
        MAMBA_FORCE_BUILD=TRUE pip install --no-cache-dir --no-build-isolation -r requirements-cuda.txt; fi

COPY apps ./apps
COPY scripts ./scripts
# MONAI Label writes its logs into the app's folder, and studies belong to whoever runs the container.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --uid 1000 --create-home --home-dir /home/app app \
    && mkdir -p /studies apps/proxyprompt/logs apps/proxyprompt/bin \
    && chown -R app /studies apps/proxyprompt /home/app

COPY docker/start.sh /usr/local/bin/start-proxyprompt

USER 1000
ENV STUDIES=/studies PORT=8000
EXPOSE 8000
VOLUME ["/studies"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 \
    CMD ["start-proxyprompt", "--health"]
ENTRYPOINT ["start-proxyprompt"]
